"""The status page in Debian's Chromium: what it shows of documents that a test makes up, and of a real agent.

Screenshots lie beside what pytest keeps (`--basetemp`), for a person to look at.
"""

import json
import pathlib
import re
import socket
import time
import urllib.request

import axe_playwright_python
import pytest
from conftest import BINARY, until
from playwright.sync_api import sync_playwright
from status_server import LOOSE, PAGE, StatusServer, Story, stamp

AXE = pathlib.Path(axe_playwright_python.__file__).with_name("axe.min.js").read_text()
HOSTILE = """<img src=x onerror="window.hacked=1">'"`</p><script>window.hacked=2</script>&lt;b&gt;\u202e"""


@pytest.fixture(scope="module")
def chromium():
    with sync_playwright() as playwright:
        # Nothing of it may ask anybody but us; the sandbox does not run as root.
        browser = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=["--no-sandbox", "--disable-background-networking"])
        yield browser
        browser.close()


@pytest.fixture
def serve():
    servers = []

    def start(story, **options):
        servers.append(StatusServer(story, **options))
        return servers[-1]

    yield start
    for server in servers:
        server.stop()


class Sheet:
    """The page in a window of its own, and all that went wrong in it."""

    def __init__(self, browser, url, width=1280, height=900, **options):
        self.origin = "/".join(url.split("/")[:3]) + "/"
        self.context = browser.new_context(viewport={"width": width, "height": height}, locale="en-GB", timezone_id="UTC", **options)
        self.page = self.context.new_page()
        self.faults, self.requests = [], []
        self.page.on("console", lambda message: self.faults.append(message.text) if message.type in ("error", "warning") else None)
        self.page.on("pageerror", lambda error: self.faults.append(str(error)))
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.goto(url)

    def text(self, selector):
        return self.page.locator(selector).inner_text()

    def wait(self, script, timeout=6):
        """Waits for a condition in the page; says what the page shows, if it does not come."""
        until(lambda: self.page.evaluate(script), timeout, lambda: f"{script}; the page shows:\n{self.text('body')[:2000]}", every=0.05)

    def wait_for_headline(self, text, timeout=6):
        self.wait(f"document.getElementById('headline').textContent.includes({json.dumps(text)})", timeout)

    def wait_for_rates(self):
        self.wait("document.querySelector('#kinesis .big span')?.textContent !== '–' && !document.getElementById('rest').hidden")

    def audit(self):
        """What axe-core finds that is serious or critical."""
        self.page.evaluate(AXE)
        found = self.page.evaluate("axe.run(document, { resultTypes: ['violations'] })")
        return [
            f"{each['impact']}: {each['id']}: {each['help']}: {[node['html'][:160] for node in each['nodes'][:3]]}"
            for each in found["violations"] if each["impact"] in ("serious", "critical")
        ]

    def overflow(self):
        return self.page.evaluate("document.documentElement.scrollWidth - innerWidth")

    def outside(self):
        return [url for url in self.requests if not url.startswith((self.origin, "data:"))]

    def close(self):
        self.context.close()


@pytest.fixture
def look(chromium):
    """Opens the page; at the end nothing may have gone wrong in it, nor anybody else been asked."""
    sheets = []

    def at(url, **options):
        sheets.append(Sheet(chromium, url, **options))
        return sheets[-1]

    yield at
    for sheet in sheets:
        sheet.close()
    for sheet in sheets:
        assert sheet.outside() == []
        assert sheet.faults == []


def at_load():
    story = Story(shards=64, records=52_000, skew=0.4)
    story.throttled, story.failed = {3, 17, 40}, {9}
    story.datagrams = story.streams = True
    story.dead = 3
    story.log = [
        {
            "time": stamp(time.time() - 60 * age), "level": "warning" if age % 3 else "error", "message": "a socket's queue was full",
            "details": f"name=syslog address=udp://0.0.0.0:514 dropped={age}",
        }
        for age in range(12, 1, -1)
    ]
    story.log += 3 * [{"time": stamp(time.time()), "level": "warning", "message": "a line that repeats", "details": ""}]
    return story


# What it shows


def test_the_page_is_one_file_that_names_no_other():
    text = PAGE.read_text()
    assert len(text.encode()) <= 80 * 1024
    for word in ("http://", "https://", "//cdn", "@import", "url(", " src=", "innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval("):
        assert word not in text.replace("http://www.w3.org/2000/svg", ""), word


@pytest.mark.parametrize("scheme, width", [("light", 1280), ("dark", 1280), ("light", 360)])
def test_an_agent_at_load_is_shown_and_axe_finds_nothing_serious(serve, look, tmp_path, figure, scheme, width):
    server = serve(at_load())
    sheet = look(server.url, width=width, color_scheme=scheme)
    sheet.wait_for_rates()
    assert sheet.page.evaluate("document.documentElement.dataset.theme") == scheme
    sheet.wait("document.querySelector('#collector .big').textContent.includes('54.0 k records/s')")
    sheet.wait("document.querySelectorAll('#heat div[data-m=t]').length == 3 && document.querySelectorAll('#heat div[data-m=f]').length == 1")
    shown = sheet.text("#accounts")
    sheet.wait(f"document.getElementById('accounts').innerText != {json.dumps(shown)}")
    sheet.page.locator("#shardlist summary").click()
    assert "Delivering to “app-logs” in eu-west-1" in sheet.text("#headline")
    assert sheet.text("#accounts").count("✓ adds up") == 3
    assert sheet.text("#heat").count("%") == 64
    assert sheet.page.locator("#log li").count() == 12
    assert "a line that repeats (3 times)" in sheet.text("#log li:first-child")
    assert "orders-api.log" in sheet.text("#files")
    assert sheet.overflow() <= 0, "nothing stands out to the right"
    assert sheet.audit() == []
    sheet.page.locator("#shardlist summary").click()
    sheet.page.screenshot(path=tmp_path / f"load-{scheme}-{width}.png", full_page=True)
    figure(f"{PAGE.stat().st_size} bytes; {tmp_path}/load-{scheme}-{width}.png")
    assert {path for path, _ in server.seen} == {"/", "/status"}


def test_at_no_width_anything_stands_out(serve, look):
    sheet = look(serve(at_load()).url)
    sheet.wait_for_rates()
    for width in (320, 414, 600, 768, 959, 961, 1100, 1280, 1920):
        sheet.page.set_viewport_size({"width": width, "height": 800})
        assert sheet.overflow() <= 0, width
        wide = "[...document.querySelectorAll('.stage, .panel')].filter(each => each.scrollWidth > each.clientWidth + 1).map(each => each.innerText.slice(0, 20))"
        assert sheet.page.evaluate(wide) == [], width


def test_rates_are_what_the_counters_gained(serve, look):
    story = Story(shards=4, records=10_000, size=1000)
    sheet = look(serve(story).url)
    sheet.wait_for_rates()
    time.sleep(2)
    gained = sheet.page.evaluate("[rate('readRecords'), rate('readBytes'), rate('output.records_delivered'), rate('cpu')]")
    assert gained == [pytest.approx(10_000, rel=0.01), pytest.approx(10_000_000, rel=0.01), pytest.approx(10_000, rel=0.01), pytest.approx(0.031, abs=0.002)]
    assert re.fullmatch(r"(9,9\d\d|10\.\d k|10,000) records/s", sheet.text("#collector .big"))
    # Of four shards one takes at most what the limits allow it: the shares are of bytes, which are nearer to their limit than records.
    shares = sheet.page.evaluate("last.shards.map(shareOf)")
    assert sum(shares) == pytest.approx(10_000_000 / 1048576, rel=0.02)


def test_quantiles_are_those_of_prometheus(serve, look):
    sheet = look(serve(Story(state="starting")).url)
    for histogram, part, wanted in [
        ({"buckets": [{"le": 1, "count": 50}, {"le": 2, "count": 100}], "count": 100}, 0.5, 1),
        ({"buckets": [{"le": 1, "count": 50}, {"le": 2, "count": 100}], "count": 100}, 0.75, 1.5),
        ({"buckets": [{"le": 0.01, "count": 0}, {"le": 0.1, "count": 10}], "count": 10}, 0.99, 0.01 + 0.09 * 0.99),
        ({"buckets": [{"le": 0.01, "count": 1}], "count": 100}, 0.99, 0.01),
        ({"buckets": [], "count": 0}, 0.5, None),
    ]:
        got = sheet.page.evaluate(f"quantile({json.dumps(histogram)}, {part})")
        assert got == (None if wanted is None else pytest.approx(wanted)), histogram


@pytest.mark.alone
def test_a_thousand_shards_are_shown_walked_through_and_cost_little(serve, look, tmp_path, figure):
    story = Story(shards=1000, records=900_000, skew=2)
    story.throttled = set(range(5, 1000, 97))
    sheet = look(serve(story).url)
    sheet.wait_for_rates()
    sheet.wait("document.querySelectorAll('#heat div[data-m=t]').length == 11")
    assert sheet.page.locator("#heat > div").count() == 1000
    levels = sheet.page.evaluate("new Set([...document.querySelectorAll('#heat div')].map(each => each.dataset.l)).size")
    assert levels > 4, "shares differ, and so do the cells"

    probe = sheet.context.new_cdp_session(sheet.page)
    probe.send("Performance.enable")

    def busy():
        return {each["name"]: each["value"] for each in probe.send("Performance.getMetrics")["metrics"]}["TaskDuration"]

    before, steps, began = busy(), sheet.page.evaluate("meters.step"), time.monotonic()
    time.sleep(4)
    took, updates = busy() - before, sheet.page.evaluate("meters.step") - steps
    figure(f"{updates} updates in {time.monotonic() - began:.1f} s: {1000 * took / updates:.1f} ms of the page's thread for each")
    assert updates >= 2
    assert took / updates < 0.25

    sheet.page.locator("#heat").focus()
    sheet.page.keyboard.press("Home")
    assert sheet.text("#shardname").startswith("shardId-000000000000")
    sheet.page.keyboard.press("ArrowRight")
    assert sheet.text("#shardname").startswith("shardId-000000000001")
    across = sheet.page.evaluate("columns()")
    sheet.page.keyboard.press("ArrowDown")
    assert sheet.text("#shardname").startswith(f"shardId-{across + 1:012d}")
    sheet.page.keyboard.press("ArrowUp")
    sheet.page.keyboard.press("ArrowUp")
    assert sheet.text("#shardname").startswith("shardId-000000000001"), "there is nothing above"
    sheet.page.keyboard.press("End")
    assert sheet.text("#shardname").startswith("shardId-000000000999")
    active = sheet.page.evaluate("document.getElementById(document.getElementById('heat').getAttribute('aria-activedescendant')).getAttribute('aria-label')")
    assert active.startswith("shardId-000000000999, ") and "% of its limits" in active
    sheet.page.keyboard.press("Escape")
    assert sheet.text("#shardname").startswith("Busiest: ")
    sheet.page.locator("#heat > div").nth(5).hover()
    assert "shardId-000000000005 (throttled" in sheet.text("#shardname")
    sheet.page.locator("#shardlist summary").click()
    sheet.wait("document.querySelectorAll('#shardtable tbody tr').length == 1000")
    sheet.page.locator("#shardlist summary").click()
    sheet.page.screenshot(path=tmp_path / "thousand.png", full_page=True)
    sheet.page.set_viewport_size({"width": 360, "height": 800})
    assert sheet.overflow() <= 0
    sheet.page.screenshot(path=tmp_path / "thousand-360.png", full_page=True)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_shares_are_read_on_every_colour_and_neighbours_differ(serve, look, scheme):
    sheet = look(serve(Story(shards=11)).url, color_scheme=scheme)
    sheet.wait_for_rates()
    # What axe cannot judge, because of what is drawn over the cells.
    colours = sheet.page.evaluate("""[...document.querySelectorAll('#heat div')].map((cell, level) => {
      cell.dataset.l = level;
      const style = getComputedStyle(cell);
      return [style.backgroundColor, style.color].map(each => each.match(/[0-9.]+/g).slice(0, 3).map(Number));
    })""")

    def luminance(colour):
        red, green, blue = (each / 255 / 12.92 if each <= 10 else ((each / 255 + 0.055) / 1.055) ** 2.4 for each in colour)
        return 0.2126 * red + 0.7152 * green + 0.0722 * blue

    def contrast(one, other):
        low, high = sorted((luminance(one), luminance(other)))
        return (high + 0.05) / (low + 0.05)

    assert len(colours) == 11
    for level, (ground, text) in enumerate(colours):
        assert contrast(ground, text) >= 4.5, f"level {level}: {ground} {text}"
    grounds = [luminance(ground) for ground, _ in colours[:10]]
    steps = [later - former for former, later in zip(grounds, grounds[1:])]
    assert all(step < 0 for step in steps) if scheme == "light" else all(step > -0.005 for step in steps), steps


def test_a_reshard_lays_the_shards_anew_and_keeps_the_one_that_was_chosen(serve, look):
    story = Story(shards=4)
    sheet = look(serve(story).url)
    sheet.wait_for_rates()
    sheet.page.locator("#heat > div").nth(3).click()
    story.weights = [1.0] * 8
    story.shards = 8
    sheet.wait("document.querySelectorAll('#heat div').length == 8")
    assert sheet.text("#shardname").startswith("shardId-000000000003")
    story.weights = [1.0]
    story.shards = 1
    sheet.wait("document.querySelectorAll('#heat div').length == 1")
    assert sheet.text("#shardname").startswith("Busiest: shardId-000000000000")


def test_an_outage_says_since_when_why_and_what_to_do_and_is_spoken_once(serve, look, tmp_path):
    story = Story(state="failing", records=5000)
    # It began with a second: what is told of it, rounded, is now before and now behind that.
    story.began = round(story.began)
    server = serve(story)
    sheet = look(server.url)
    sheet.wait_for_headline("Failing since")
    sheet.wait("document.getElementById('spoken').textContent.startsWith('Failing')")
    sheet.page.evaluate("window.spoken = 0; new MutationObserver(() => spoken += 1).observe($('spoken'), { childList: true, characterData: true, subtree: true })")
    assert "connection timed out" in sheet.text("#what")
    assert "kept in the spool" in sheet.text("#what")
    assert "network, firewall, proxy" in sheet.text("#todo")
    sheet.wait("document.getElementById('spooltext').textContent.startsWith('It fills: full in about')")
    assert "fills" in sheet.text("#spool h3")
    assert sheet.text("#accounts").count("✓ adds up") == 1
    sheet.page.screenshot(path=tmp_path / "failing.png", full_page=True)
    before = sheet.text("#headline")
    sheet.wait(f"document.getElementById('headline').textContent != {json.dumps(before)}")
    time.sleep(5)
    assert sheet.page.evaluate("spoken") == 0, "its length is not spoken each second"
    story.state = "delivering"
    sheet.wait_for_headline("Delivering")
    assert sheet.page.evaluate("spoken") == 1
    assert sheet.page.title() == "Delivering to “app-logs” in eu-west-1 · gw-1 · Penstock"


def test_what_to_do_follows_from_what_failed(serve, look):
    sheet = look(serve(Story(state="starting")).url)
    for failure, words in [
        ("AccessDeniedException: no identity-based policy allows it", "allow kinesis:PutRecords"),
        ("ExpiredTokenException", "look at the credentials"),
        ("ResourceNotFoundException", "check stream, region and account"),
        ("could not resolve host", "DNS"),
        ("certificate has expired", "ca_file"),
        ("ProvisionedThroughputExceededException", "Add shards"),
        ("connection refused", "network, firewall, proxy"),
        ("something never heard of", "see the log"),
    ]:
        given = json.dumps({"last_failure": failure, "errors": [], "endpoint": "https://example"})
        assert words in sheet.page.evaluate(f"advice({given})"), failure


def test_sockets_are_shown_with_what_was_dropped_where(serve, look):
    story = Story()
    story.datagrams = story.streams = True
    sheet = look(serve(story).url)
    sheet.wait_for_rates()
    sheet.wait("document.getElementById('datagrams').textContent.includes('▲ 40/s')")
    assert "udp://0.0.0.0:514" in sheet.text("#datagrams")
    assert "17 policy" in sheet.text("#datagrams")
    assert "9 handshakes failed" in sheet.text("#streams")
    assert "The kernel drops 40" in sheet.text("#attention")
    assert "Raise receive_buffer" in sheet.text("#attention")


def test_what_is_not_there_is_said(serve, look, tmp_path):
    story = Story(records=0, shards=1, state="starting", age=3)
    story.files = story.spool = False
    sheet = look(serve(story).url)
    sheet.wait_for_headline("Starting")
    for selector, words in [
        ("#noinputs", "no input"), ("#nofiles", "No input reads files"), ("#nosockets", "No input listens"), ("#noshards", "not known yet"),
        ("#spooltext", "There is no spool"), ("#nolog", "None since"),
    ]:
        assert words in sheet.text(selector)
    assert sheet.page.locator("table:visible").count() == 2, "those of the latency alone"
    assert sheet.audit() == []
    sheet.page.screenshot(path=tmp_path / "starting.png", full_page=True)


def test_an_account_that_does_not_add_up_says_by_how_much(serve, look):
    story = Story()
    document = story.document()
    document["inputs"][0]["delivered"]["records"] -= 12
    document["inputs"][0]["delivered"]["bytes"] += 100
    server = serve(story)
    server.answer = (200, json.dumps(document).encode(), "application/json")
    sheet = look(server.url)
    sheet.wait_for_headline("Delivering")
    assert "✕ off by 12" in sheet.text("#accounts")
    assert "-100 bytes" in sheet.text("#accounts")
    assert "does not add up" in sheet.text("#attention")


# What it is given


@pytest.mark.parametrize("header", [None, LOOSE], ids=["by hashes", "unsafe-inline"])
def test_hostile_text_is_shown_as_text(serve, look, header):
    story = Story(shards=2, host=HOSTILE)
    server = serve(story, header=header)
    document = story.document()

    def poison(value, key=""):
        if isinstance(value, dict):
            return {name: poison(each, name) for name, each in value.items()}
        if isinstance(value, list):
            return [poison(each) for each in value]
        return HOSTILE + key if isinstance(value, str) and key not in ("state", "time", "started", "first_hash_key", "last_hash_key") else value

    document["log"] = [{"time": HOSTILE, "level": HOSTILE, "message": HOSTILE, "details": HOSTILE}, {"time": None, "level": "error", "message": None, "details": ""}]
    document["datagrams"] = Story.document(at_load())["datagrams"]
    document["output"]["errors"] = [{"code": HOSTILE, "count": 1}]
    poisoned = poison(document)
    poisoned["log"] = document["log"]
    poisoned["inputs"][0]["name"] = "__proto__"
    server.answer = (200, json.dumps(poisoned).encode(), "application/json")
    sheet = look(server.url)
    sheet.wait_for_headline("Delivering")
    sheet.page.locator("#heat > div").nth(1).click()
    sheet.page.locator("#shardlist summary").click()
    time.sleep(1.2)
    assert sheet.page.evaluate("window.hacked") is None
    assert sheet.page.locator("body img, body script, #rest b:not(#attention b)").count() == 0
    for selector in ("#who", "#files", "#log", "#datagrams", "#shardtable", "#errors"):
        assert '<img src=x onerror="window.hacked=1">' in sheet.page.locator(selector).text_content(), selector


def test_an_answer_that_makes_no_sense_is_said_and_the_next_good_one_is_shown(serve, chromium):
    server = serve(Story())
    server.answer = (500, b"oops", "text/plain")
    sheet = Sheet(chromium, server.url)
    for answer, words in [
        ((500, b"oops", "text/plain"), "HTTP status 500"),
        ((200, b"<html>", "text/html"), "no JSON"),
        ((200, b"[]", "application/json"), "cannot show"),
        ((200, b'{"shards": 3}', "application/json"), "cannot show"),
    ]:
        server.answer = answer
        sheet.wait(f"document.getElementById('state').textContent.includes({json.dumps(words)})")
    server.answer = (200, b'{"state": "delivering", "uptime_seconds": 1}', "application/json")
    sheet.wait_for_headline("Delivering to Kinesis")
    server.answer = None
    sheet.wait_for_headline("Delivering to “app-logs”")
    sheet.wait_for_rates()
    # A status of 500 is an error in the console, too: the browser's own.
    assert [fault for fault in sheet.faults if "500" not in fault] == []
    sheet.close()


def test_an_agent_that_goes_is_missed_and_one_that_comes_back_begins_anew(serve, chromium, tmp_path):
    story = Story()
    server = serve(story)
    sheet = Sheet(chromium, server.url)
    sheet.wait_for_rates()
    server.stop()
    sheet.wait_for_headline("Agent not reachable since", 8)
    assert "The figures below are from before" in sheet.text("#what")
    assert "systemctl status penstock" in sheet.text("#todo")
    assert sheet.audit() == []
    sheet.page.screenshot(path=tmp_path / "gone.png", full_page=True)
    server.story = Story(age=1, records=100)
    server.story.process = 99
    server.start()
    sheet.wait_for_headline("Delivering", 8)
    sheet.wait("document.querySelector('#collector .big').textContent.includes('100 records/s')")
    rates = sheet.page.evaluate("[...meters.values.keys()].map(rate).filter(each => each < 0)")
    assert [each for each in rates if each < -1e6] == [], "counters that began anew are no rates below nothing"
    assert [fault for fault in sheet.faults if "ERR_" not in fault] == []
    sheet.close()


def test_a_token_leaves_the_address_is_sent_as_a_header_and_can_be_typed(serve, chromium):
    server = serve(Story(), token="s3cret/+&")
    sheet = Sheet(chromium, server.url + "?token=s3cret/+%26")
    sheet.wait_for_headline("Delivering")
    assert sheet.page.url == server.url
    assert sheet.page.evaluate("history.length") <= 2
    assert {header for path, header in server.seen if path == "/status"} == {"Bearer s3cret/+&"}
    assert not any("s3cret" in path for path, _ in server.seen)
    assert sheet.faults == []
    sheet.page.reload()
    sheet.wait_for_headline("Delivering")
    sheet.close()

    sheet = Sheet(chromium, server.url)
    sheet.wait_for_headline("wants its token")
    assert sheet.audit() == []
    assert sheet.page.get_by_role("textbox", name="Token").count() == 1
    sheet.page.locator("#token").fill("wrong")
    sheet.page.keyboard.press("Enter")
    sheet.wait("document.getElementById('what').textContent.includes('refuses')")
    sheet.page.locator("#token").fill("s3cret/+&")
    sheet.page.keyboard.press("Enter")
    sheet.wait_for_headline("Delivering")
    assert not sheet.page.locator("#token").is_visible()
    sheet.close()


# How it behaves


def test_hidden_it_asks_rarely_paused_never_and_at_once_when_seen_again(serve, look):
    server = serve(Story())
    sheet = look(server.url)
    sheet.wait_for_rates()
    hide = "Object.defineProperty(document, 'hidden', { value: %s, configurable: true }); document.dispatchEvent(new Event('visibilitychange'))"
    sheet.page.evaluate(hide % "true")
    time.sleep(1.2)
    asked = len(server.seen)
    time.sleep(1.3)
    assert len(server.seen) == asked
    sheet.page.evaluate(hide % "false")
    until(lambda: len(server.seen) > asked, 1, "a question as soon as the page is seen")
    sheet.page.get_by_role("button", name="Pause").click()
    time.sleep(0.3)
    asked = len(server.seen)
    time.sleep(1.2)
    assert len(server.seen) == asked
    sheet.page.get_by_role("button", name="Resume").click()
    until(lambda: len(server.seen) > asked + 1, 4, "further questions")


def test_the_theme_is_chosen_remembered_and_follows_the_system_until_then(serve, look):
    sheet = look(serve(Story()).url, color_scheme="light")
    theme = "document.documentElement.dataset.theme"
    assert sheet.page.evaluate(theme) == "light"
    sheet.page.emulate_media(color_scheme="dark")
    sheet.wait(f"{theme} == 'dark'")
    sheet.page.get_by_role("button", name="Light").click()
    assert sheet.page.evaluate(theme) == "light"
    sheet.page.reload()
    assert sheet.page.evaluate(theme) == "light"
    sheet.page.emulate_media(reduced_motion="reduce")
    assert sheet.page.evaluate("getComputedStyle(document.querySelector('.meter > div')).transitionDuration") == "0s"


def test_everything_that_acts_is_reached_by_the_keyboard_and_shows_its_focus(serve, look):
    story = Story()
    story.log = [{"time": stamp(time.time()), "level": "warning", "message": "m", "details": ""}]
    sheet = look(serve(story).url)
    sheet.wait_for_rates()
    reached = []
    for _ in range(14):
        sheet.page.keyboard.press("Tab")
        reached.append(sheet.page.evaluate(
            "[document.activeElement == document.body ? null : document.activeElement.id || document.activeElement.textContent.trim().slice(0, 21),"
            " getComputedStyle(document.activeElement).outlineStyle != 'none' || document.activeElement.className == 'skip']"
        ))
    names = [name for name, _ in reached]
    assert names[0] == "To the figures"
    for name in ("pause", "theme", "heat", "All shards as a table", "log"):
        assert name in names, names
    assert all(shows for name, shows in reached if name), reached
    landmarks = sheet.page.evaluate("['header', 'main', 'footer', 'h1'].map(each => document.querySelectorAll(each).length)")
    assert landmarks == [1, 1, 1, 1]


def test_half_an_hour_of_answers_leaves_no_more_behind_than_five_minutes(serve, look, figure):
    sheet = look(serve(at_load()).url)
    sheet.wait_for_rates()
    sheet.page.get_by_role("button", name="Pause").click()
    probe = sheet.context.new_cdp_session(sheet.page)
    probe.send("Performance.enable")
    # Other files, sockets, shards and log lines each time, as in a long life.
    live = """(count) => {
      for (let step = 0; step < count; step += 1) {
        const next = structuredClone(last), up = next.uptime_seconds + 1, age = Math.floor(up);
        next.uptime_seconds = up;
        for (const input of next.inputs) { input.read.records += 1000; input.delivered.records += 1000; }
        for (const shard of next.shards) { shard.bytes += 1000 * (age % 300); shard.throttled += age % 50 == 0 ? 1 : 0; if (age % 600 < 2) shard.id = "shard-" + age + shard.first_hash_key; }
        for (const file of next.files.furthest_behind) file.path = "/var/log/" + Math.floor(age / 5) + file.size_bytes;
        next.log.push({ time: next.time, level: "warning", message: "line " + age, details: "" });
        while (next.log.length > 50) next.log.shift();
        absorb(whole(next));
        show();
      }
    }"""

    def weigh():
        probe.send("HeapProfiler.collectGarbage")
        values = {each["name"]: each["value"] for each in probe.send("Performance.getMetrics")["metrics"]}
        return values["JSHeapUsedSize"], values["Nodes"]

    sheet.page.evaluate(f"({live})(300)")
    heap, nodes = weigh()
    began = time.monotonic()
    sheet.page.evaluate(f"({live})(1800)")
    took = time.monotonic() - began
    later_heap, later_nodes = weigh()
    figure(f"heap {heap / 1e6:.1f} then {later_heap / 1e6:.1f} MB, nodes {nodes:.0f} then {later_nodes:.0f}; {1000 * took / 1800:.2f} ms an answer of 64 shards")
    assert later_heap < heap + 1_000_000
    assert later_nodes < nodes + 200
    assert sheet.page.evaluate("course.length") <= 600
    assert sheet.page.evaluate("refusals.size") <= 200


# The real agent


@pytest.mark.skipif(b"/readyz" not in BINARY.read_bytes(), reason="this binary has no admin server")
def test_a_real_agent_is_shown(make_agent, local_kinesis, stream, logs, tmp_path, figure, look):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    log = logs / "app.log"
    log.write_text("a line that is read\n" * 5000)
    agent = make_agent(logs / "*.log", local_kinesis.url, stream, agent={"admin": f"127.0.0.1:{port}"})
    agent.start()
    url = f"http://127.0.0.1:{port}/"

    def answers():
        try:
            with urllib.request.urlopen(url + "healthz", timeout=2) as answer:
                return answer.status == 200
        except OSError:
            return False

    until(answers, 10, "the admin server")
    with urllib.request.urlopen(url, timeout=5) as answer:
        assert answer.read() == PAGE.read_bytes(), "the page of the checkout: build the binary anew"
        assert "default-src 'none'" in answer.headers["Content-Security-Policy"]

    def shape(value, path="$"):
        if isinstance(value, dict):
            return {path} | {each for name, inner in value.items() for each in shape(inner, f"{path}.{name}")}
        return {path} | {each for inner in value for each in shape(inner, f"{path}[]")} if isinstance(value, list) else {path}

    def status():
        with urllib.request.urlopen(url + "status", timeout=5) as answer:
            document = json.load(answer)
        return document if document["inputs"][0]["delivered"]["records"] >= 5000 and document["shards"] else None

    told = shape(until(status, 10, "5,000 records in /status"))
    missing = {each for each in shape(Story().document()) - told if not each.startswith(("$.log[]", "$.output.errors[]"))}
    assert missing == set(), "the stories are made up of what an agent tells"
    for scheme, width in [("light", 1280), ("dark", 1280), ("light", 360)]:
        sheet = look(url, width=width, color_scheme=scheme)
        sheet.wait_for_headline("Delivering")
        with open(log, "a") as more:
            more.write("a line that is read\n" * 20_000)
        sheet.wait("rate('output.records_delivered') > 0", 10)
        sheet.wait("document.getElementById('accounts').textContent.includes('✓ adds up')")
        assert sheet.page.locator("#heat > div").count() == 4
        assert str(log) in sheet.text("#files")
        assert sheet.overflow() <= 0
        assert sheet.audit() == []
        sheet.page.screenshot(path=tmp_path / f"agent-{scheme}-{width}.png", full_page=True)
    figure(f"{tmp_path}/agent-*.png")
