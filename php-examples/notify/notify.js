// The inbox: listens to one WebSocket. Texts of other people are shown as text only, never as HTML.
"use strict";

const $ = (id) => document.getElementById(id);
const MAX_NOTES = 100; // on the page; older ones are removed
const RETRY_MS = [500, 1000, 2000, 5000, 10000];

let failures = 0;
let me = null; // the name that the handler has recognised
let isStranger = false;
let isConnecting = false;
let unseen = 0; // notes that came while the page was hidden

function connect() {
  isConnecting = true;
  const socket = new WebSocket(new URL("ws", location.href).href.replace(/^http/, "ws"));
  socket.onmessage = (event) => {
    const frame = JSON.parse(event.data);
    if (Object.hasOwn(heard, frame.is)) heard[frame.is](frame);
  };
  socket.onclose = () => {
    isConnecting = false;
    if (isStranger) return; // until the user comes back to this page, perhaps after signing in
    showState("Not connected. Trying again …");
    setTimeout(connect, RETRY_MS[Math.min(failures++, RETRY_MS.length - 1)] * (0.75 + Math.random() / 2));
  };
}

// The messages, by the word in `is`.
const heard = {
  hello({ name, form }) {
    failures = 0;
    isStranger = name === null;
    if (name !== me) $("notes").replaceChildren(); // those belonged to another user
    me = name;
    $("name").textContent = name ?? "";
    $("stranger").hidden = !isStranger;
    $("inbox").hidden = isStranger;
    $("form").hidden = isStranger;
    $("form").href = $("sign-in").href = form;
    showState(isStranger ? "" : "Connected");
    showCounts();
  },

  note({ from, text, at }) {
    const when = new Date(at * 1000);
    const time = make("time", when.toLocaleTimeString([], { hour: "2-digit", minute: "2-digit" }));
    time.dateTime = when.toISOString();
    const head = make("div", make("strong", from), time);
    head.className = "head";
    const body = make("p", text);
    body.className = "text";
    $("notes").prepend(make("li", head, body));
    while ($("notes").childElementCount > MAX_NOTES) $("notes").lastElementChild.remove();
    if (document.hidden) unseen++;
    showCounts();
  },
};

function make(tag, ...children) {
  const element = document.createElement(tag);
  element.append(...children);
  return element;
}

function showState(text) {
  $("state").textContent = text;
}

function showCounts() {
  $("nothing").hidden = $("notes").childElementCount > 0;
  document.title = unseen > 0 ? `(${unseen}) Inbox` : "Inbox";
}

function lookAgain() {
  if (document.hidden) return;
  unseen = 0;
  showCounts();
  if (isStranger && !isConnecting) connect();
}

document.onvisibilitychange = lookAgain;
window.onfocus = lookAgain;
window.onpageshow = (event) => event.persisted && lookAgain();

connect();
