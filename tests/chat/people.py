"""Three people in the chat of php-examples, each in a browser of their own.

    people.py URL CHROMIUM

Ann sits at a desk, Bob holds a phone in the dark, Cleo looks in. Ends with status 0 when each of them saw what they should
see. LONGWIRE_SCREENSHOTS=DIR keeps pictures for a look after a change.
"""

import os
import re
import sys
from pathlib import Path

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, expect, sync_playwright

URL, CHROMIUM = sys.argv[1:]
PICTURES = os.environ.get("LONGWIRE_SCREENSHOTS")
NASTY = "<img src=x onerror=\"document.title='owned'\"> & <b>bold</b>"


class Person:
    """A person: a browser page and the actions on it."""

    def __init__(self, browser: Browser, name: str, **screen) -> None:
        self.name = name
        self.complaints: list[str] = []
        self.page: Page = browser.new_context(**screen).new_page()
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("console", self._hear)
        self.page.on("requestfailed", lambda request: self.complaints.append(f"not loaded: {request.url}"))
        self.page.goto(URL)
        self.is_phone = bool(screen.get("is_mobile"))

    def _hear(self, message) -> None:
        if message.type in ("error", "warning"):
            self.complaints.append(message.text)

    def asks_to_enter(self, name: str, room: str = "lounge") -> None:
        self.page.get_by_label("Your name").fill(name)
        self.page.get_by_label("Room", exact=True).fill(room)
        self.page.get_by_role("button", name="Enter").click()

    def enters(self, room: str = "lounge") -> None:
        self.asks_to_enter(self.name, room)
        self.is_in(room)

    def is_in(self, room: str) -> None:
        expect(self.page.get_by_role("heading", level=1)).to_have_text(room)
        expect(self.page.get_by_role("status")).to_have_text(f"You are {self.name}")

    def says(self, text: str) -> None:
        self.page.get_by_label("Your line").fill(text)
        self.page.keyboard.press("Enter")
        expect(self.page.get_by_label("Your line")).to_have_value("")

    def sees(self, text: str) -> None:
        expect(self.page.get_by_role("log")).to_contain_text(text)

    def sees_no(self, text: str) -> None:
        """Call this only after a message that was sent later has been seen."""
        expect(self.page.get_by_role("log")).not_to_contain_text(text)

    def opens_the_list(self) -> None:
        if self.is_phone:
            self.page.get_by_role("button", name="Rooms and people").click()

    def turns_to(self, other: str) -> None:
        self.opens_the_list()
        self.page.get_by_role("list", name="People").get_by_role("button", name=re.compile(rf"^\W*\w?\s*{other}\b")).click()
        expect(self.page.locator("#private-to")).to_have_text(other)

    def goes_to(self, room: str, known: bool) -> None:
        self.opens_the_list()
        if known:
            self.page.get_by_role("list", name="Rooms").get_by_role("button", name=re.compile(f"^{room}")).click()
        else:
            self.page.get_by_label("Another room").fill(room)
            self.page.get_by_role("button", name="Go").click()
        self.is_in(room)

    def sees_people(self, names: list[str]) -> None:
        shown = self.page.locator("#people .name")
        expect(shown).to_have_text(names)

    def keeps_picture(self, what: str) -> None:
        if PICTURES:
            self.page.screenshot(path=Path(PICTURES) / f"chat-{what}.png")

    def has_an_accessible_page(self) -> None:
        found = Axe().run(self.page)
        assert found.violations_count == 0, found.generate_report()
        wider = self.page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
        assert wider <= 0, f"{self.name}'s page is {wider} pixels wider than the screen"


def main() -> None:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=CHROMIUM,
            # Chromium's sandbox does not work as root, and the page can be trusted.
            args=["--no-sandbox", "--disable-dev-shm-usage", "--disable-background-networking", "--disable-quic"],
        )
        expect.set_options(timeout=20_000)
        desk = {"viewport": {"width": 1100, "height": 760}}
        phone = {
            "viewport": {"width": 390, "height": 780},
            "device_scale_factor": 2,
            "is_mobile": True,
            "has_touch": True,
            "color_scheme": "dark",
        }
        ann = Person(browser, "Ann", **desk)
        bob = Person(browser, "Bob", **phone)
        cleo = Person(browser, "Cléo", **desk, color_scheme="dark")
        everybody = [ann, bob, cleo]

        names_and_rooms(ann, bob, cleo)
        lines(ann, bob, cleo)
        private_lines(ann, bob, cleo)
        other_rooms(ann, bob, cleo)
        a_lost_connection(ann, bob)
        a_closed_tab(ann, bob, cleo)

        for person in everybody:
            assert not person.complaints, f"{person.name}'s browser complains: {person.complaints}"
        browser.close()


def names_and_rooms(ann: Person, bob: Person, cleo: Person) -> None:
    expect(ann.page.locator("#company")).to_have_text("Nobody is here yet.")
    for person in (ann, bob):
        person.has_an_accessible_page()
    ann.keeps_picture("entry-desk-light")
    bob.keeps_picture("entry-phone-dark")
    ann.enters()
    ann.sees_people(["Ann"])

    bob.asks_to_enter("ann")
    expect(bob.page.get_by_role("alert").first).to_have_text("Somebody has that name already.")
    bob.asks_to_enter("Bob, Longwire-To: all")
    expect(bob.page.get_by_role("alert").first).to_have_text("A name has 1 to 24 letters and digits.")
    bob.enters()
    ann.sees("Bob came in")
    ann.sees_people(["Ann", "Bob"])
    cleo.enters()
    bob.sees("Cléo came in")


def lines(ann: Person, bob: Person, cleo: Person) -> None:
    ann.says("Hello Bob, how is the train?")
    bob.sees("Hello Bob, how is the train?")
    bob.says("Late, as ever. And the Wi-Fi comes and goes, so do not wonder when I do.")
    bob.says(NASTY)
    for person in (ann, cleo):
        person.sees(NASTY)
        assert person.page.locator("#lines img, #lines b").count() == 0, "a line became HTML"
        assert person.page.title() == "lounge · Chat"
        # Only the first of two lines in a row shows the name.
        expect(person.page.locator("#lines .line .who:visible")).to_have_text(["Ann", "Bob"])
    cleo.says("x" * 3000)
    # The page cuts longer lines.
    ann.sees("x" * 1000)
    assert "x" * 1001 not in ann.page.get_by_role("log").inner_text()
    cleo.page.evaluate("ask({ do: 'say', text: 'y'.repeat(3000) })")
    expect(cleo.page.locator("#problem")).to_have_text("That is too long for one line.")


def private_lines(ann: Person, bob: Person, cleo: Person) -> None:
    ann.turns_to("Bob")
    ann.says("Cléo has her birthday on Friday.")
    bob.sees("Cléo has her birthday on Friday.")
    expect(bob.page.locator(".line.secret .who")).to_have_text("Ann, only to you")
    expect(ann.page.locator(".line.secret .who")).to_have_text("Ann, to Bob")
    ann.has_an_accessible_page()
    ann.keeps_picture("talk-desk-light")
    ann.page.get_by_role("button", name="Talk to everybody").click()
    ann.says("Who is for tea?")
    cleo.sees("Who is for tea?")
    cleo.sees_no("birthday")
    bob.sees("Who is for tea?")
    bob.has_an_accessible_page()
    bob.keeps_picture("talk-phone-dark")
    bob.opens_the_list()
    bob.has_an_accessible_page()
    bob.keeps_picture("list-phone-dark")
    bob.page.get_by_role("button", name="Close").click()
    cleo.keeps_picture("talk-desk-dark")


def other_rooms(ann: Person, bob: Person, cleo: Person) -> None:
    bob.goes_to("tea house", known=False)
    ann.sees("Bob went to tea house")
    ann.says("He has gone. Cake or a book?")
    cleo.sees("He has gone. Cake or a book?")
    cleo.goes_to("tea house", known=True)
    bob.sees("Cléo came in from lounge")
    bob.says("The tea is good here.")
    cleo.sees("The tea is good here.")
    bob.sees_no("Cake or a book?")
    # Across rooms, in private.
    ann.turns_to("Bob")
    ann.says("Still there?")
    bob.sees("Still there?")
    ann.page.keyboard.press("Escape")
    ann.sees_no("The tea is good here.")
    # After coming back, a person finds the lines that were said meanwhile.
    bob.goes_to("lounge", known=True)
    bob.sees("He has gone. Cake or a book?")
    bob.sees("how is the train?")
    ann.sees("Bob came in from tea house")


def a_lost_connection(ann: Person, bob: Person) -> None:
    seen = ann.page.locator(".note", has_text="Bob came in").count()
    bob.page.evaluate("socket.close()")
    ann.sees("Bob left")
    bob.is_in("lounge")
    expect(ann.page.locator(".note", has_text="Bob came in")).to_have_count(seen + 1)
    bob.says("Here I am again.")
    ann.sees("Here I am again.")


def a_closed_tab(ann: Person, bob: Person, cleo: Person) -> None:
    cleo.goes_to("lounge", known=True)
    ann.sees("Cléo came in from tea house")
    ann.sees_people(["Ann", "Bob", "Cléo"])
    cleo.page.close()
    ann.sees("Cléo left")
    bob.sees("Cléo left")
    ann.sees_people(["Ann", "Bob"])
    ann.keeps_picture("left-desk-light")


main()
