// The browser's side of handler.php: JSON frames over one WebSocket. Texts of other people are shown as text only,
// never as HTML.
"use strict";

const $ = (id) => document.getElementById(id);
const MAX_LINES = 500; // on the page; older ones are removed
const RETRY_MS = [500, 1000, 2000, 5000, 10000];

let socket = null;
let failures = 0;
let me = null; // my name, once I have entered
let room = null;
let session = null; // the session id of this connection
let noted = null; // the session id in the handler's list: an earlier one while this page reconnects
let wanted = null; // { name, room } that I have asked for
let privately = null; // the name of the only reader of my next line
const people = new Map(); // name -> room

function connect() {
  socket = new WebSocket(new URL("ws", location.href).href.replace(/^http/, "ws"));
  socket.onopen = () => {
    failures = 0;
    if (wanted) enter(); // the connection was lost, and I was here before
  };
  socket.onmessage = (event) => {
    const frame = JSON.parse(event.data);
    if (Object.hasOwn(heard, frame.is)) heard[frame.is](frame);
  };
  socket.onclose = () => {
    room = null;
    showState("Not connected. Trying again …");
    setTimeout(connect, RETRY_MS[Math.min(failures++, RETRY_MS.length - 1)] * (0.75 + Math.random() / 2));
  };
}

function ask(frame) {
  if (socket.readyState !== WebSocket.OPEN) return showProblem("Not connected. Your line was not sent.");
  socket.send(JSON.stringify(frame));
  return true;
}

function enter() {
  ask({ do: "enter", ...wanted, was: noted ?? "" });
}

// The handler's messages, by the word in `is`.
const heard = {
  hello(frame) {
    session = frame.session;
    $("state").title = frame.node && `Connected to ${frame.node}`;
    takePeople(frame.people);
    const count = people.size;
    $("company").textContent =
      count === 0 ? "Nobody is here yet." : count === 1 ? "One person is here." : `${count} people are here.`;
    $("known-rooms").replaceChildren(...rooms().map(([name]) => make("option", { value: name })));
  },

  moved({ name, from, to }) {
    // A person who reconnects to another node after a lost connection has never left, from the view of the others.
    const isBack = !from && people.get(name) === to;
    if (to) people.set(name, to);
    else people.delete(name);
    if (wanted && name === wanted.name && to === wanted.room && to !== room) {
      me = name;
      room = to;
      noted = session;
      arrive();
      ask({ do: "look" });
    } else if (from !== to && room && !isBack) {
      if (to === room) addNote(from ? `${name} came in from ${from}` : `${name} came in`);
      else if (from === room) addNote(to ? `${name} went to ${to}` : `${name} left`);
    }
    if (!to && name === privately) talkTo(null);
    showSide();
  },

  room(frame) {
    if (frame.room !== room) return;
    takePeople(frame.people);
    frame.lines.forEach(addLine);
    showSide();
  },

  said(frame) {
    if (frame.room === room) addLine(frame);
  },

  told(frame) {
    addLine({ ...frame, name: frame.from, secret: frame.from === me ? `to ${frame.to}` : "only to you" });
  },

  refused({ about, text }) {
    if (about === "name" && me) {
      // Reconnected after a lost connection, but another person has taken the name meanwhile.
      showState(`${text} Trying again …`);
      setTimeout(enter, 1500);
    } else if (me) {
      wanted = { name: me, room };
      showProblem(text);
    } else {
      wanted = null;
      $("entry-problem").textContent = text;
      $(about === "room" ? "first-room" : "name").focus();
    }
  },
};

function takePeople(list) {
  people.clear();
  for (const person of list) people.set(person.name, person.room);
}

function rooms() {
  const counts = new Map([["lounge", 0]]);
  for (const where of people.values()) counts.set(where, (counts.get(where) ?? 0) + 1);
  if (room && !counts.has(room)) counts.set(room, 0);
  return [...counts].sort(([a], [b]) => a.localeCompare(b));
}

// The page

function arrive() {
  $("entry").hidden = true;
  $("chat").hidden = false;
  $("lines").replaceChildren();
  $("room-name").textContent = room;
  document.title = `${room} · Chat`;
  showState(`You are ${me}`);
  showProblem("");
  openSide(false);
  // On a phone this would open the keyboard before the user has read anything.
  if (matchMedia("(hover: hover)").matches) $("text").focus();
}

function showState(text) {
  $("state").textContent = text;
}

function showProblem(text) {
  $("problem").textContent = text;
}

function make(tag, properties, ...children) {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children);
  return element;
}

/** A colour for each name, the same on every page. */
function hue(name) {
  let sum = 0;
  for (const letter of name) sum = (sum * 31 + letter.codePointAt(0)) % 360;
  return sum;
}

function face(name) {
  const element = make("span", { className: "face", ariaHidden: "true", textContent: [...name][0].toUpperCase() });
  element.style.setProperty("--hue", hue(name));
  return element;
}

function showSide() {
  $("rooms").replaceChildren(
    ...rooms().map(([name, count]) => {
      const counted = make("span", { className: "count", textContent: count });
      counted.append(make("span", { className: "unseen", textContent: count === 1 ? " person" : " people" }));
      const button = make("button", { type: "button", onclick: () => go(name) }, name, counted);
      if (name === room) button.ariaCurrent = "true";
      return make("li", {}, button);
    }),
  );
  const names = [...people.keys()].sort((a, b) => a.localeCompare(b));
  $("people").replaceChildren(
    ...names.map((name) => {
      const where = name === me ? "you" : people.get(name) === room ? "" : people.get(name);
      const button = make("button", { type: "button", disabled: name === me, onclick: () => talkTo(name) });
      button.append(face(name), make("span", { className: "name", textContent: name }), make("span", { className: "where", textContent: where }));
      button.ariaPressed = String(name === privately);
      return make("li", {}, button);
    }),
  );
}

function openSide(open) {
  $("side").classList.toggle("open", open);
  $("open-side").ariaExpanded = String(open);
}

function go(name) {
  openSide(false);
  if (name === room) return;
  wanted = { name: me, room: name };
  enter();
}

function talkTo(name) {
  privately = name;
  $("private").hidden = !name;
  $("private-to").textContent = name ?? "";
  openSide(false);
  showSide();
  if (name) $("text").focus();
}

function addNote(text) {
  append(make("div", { className: "note", textContent: text }));
}

function addLine({ id, name, text, at, secret }) {
  const when = new Date(at * 1000);
  const time = make("time", { dateTime: when.toISOString() });
  time.textContent = when.toLocaleTimeString([], { hour: "2-digit", minute: "2-digit" });
  const who = make("span", { className: "who", textContent: secret ? `${name}, ${secret}` : name });
  const line = make("div", { className: "line" });
  line.append(make("div", { className: "head" }, who, time), make("div", { className: "text", textContent: text }));
  line.style.setProperty("--hue", hue(name));
  line.classList.toggle("mine", name === me);
  line.classList.toggle("secret", Boolean(secret));
  line.dataset.by = who.textContent;
  if (id) {
    // A line may come twice: when it is said, and in the answer to `look`. Two lines at the same time may come in either order.
    line.dataset.id = id;
    const kept = [...$("lines").querySelectorAll("[data-id]")];
    if (kept.some((other) => other.dataset.id === line.dataset.id)) return;
    const next = kept.find((other) => Number(other.dataset.id) > id);
    if (next) {
      next.before(line);
      group(line);
      group(next);
      return;
    }
  }
  append(line);
}

/** Only the first of several lines of one person shows the name. */
function group(line) {
  line.classList.toggle("first", line.previousElementSibling?.dataset.by !== line.dataset.by);
}

function append(element) {
  const lines = $("lines");
  // Do not scroll if the user has scrolled up to read.
  const follows = lines.scrollHeight - lines.scrollTop - lines.clientHeight < 80 || element.matches(".mine");
  lines.append(element);
  group(element);
  while (lines.childElementCount > MAX_LINES) lines.firstElementChild.remove();
  if (follows) lines.scrollTop = lines.scrollHeight;
}

$("enter").onsubmit = (event) => {
  event.preventDefault();
  $("entry-problem").textContent = "";
  wanted = { name: $("name").value.trim(), room: $("first-room").value.trim() || "lounge" };
  if (socket.readyState === WebSocket.OPEN) enter();
};

$("go").onsubmit = (event) => {
  event.preventDefault();
  const name = $("new-room").value.trim();
  $("new-room").value = "";
  if (name) go(name);
};

$("say").onsubmit = (event) => {
  event.preventDefault();
  const text = $("text").value.trim();
  showProblem("");
  if (text && ask(privately ? { do: "tell", to: privately, text } : { do: "say", text })) $("text").value = "";
};

$("to-all").onclick = () => {
  talkTo(null);
  $("text").focus();
};
$("open-side").onclick = () => {
  openSide(true);
  $("close-side").focus();
};
$("close-side").onclick = () => {
  openSide(false);
  $("open-side").focus();
};
document.onkeydown = (event) => {
  if (event.key !== "Escape") return;
  if ($("side").classList.contains("open")) $("close-side").click();
  else if (privately) $("to-all").click();
};

connect();
