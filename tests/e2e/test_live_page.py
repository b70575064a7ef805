"""The live page in a real browser, over the embedded model."""

from __future__ import annotations

import contextlib
import zipfile
from urllib.parse import urlencode

import httpx2
import numpy as np
import pytest
from axe_playwright_python.sync_playwright import Axe

import musicgen_lab as lab
from musicgen_lab.clip import decode_audio
from musicgen_lab.source import Source
from musicgen_lab.web.settings import WebSettings
from tests.e2e.browser import DESKTOP, PHONE, chromium
from tests.support.demo_engine import open_demo
from tests.support.live import live_service
from tests.support.sine_engine import sine_worker
from tests.support.sounds import sine
from tests.support.sources import sound_file

GRID = {"down": "temperature:0.7,1,1.3", "across": "cfg_coef:1,3,5"}
SHORT = {"prompt": "calm guitar", "duration": 1, "seed": 7}
SLOW_MS = 120_000
DONE = "() => [...document.querySelectorAll('.cell')].every(it => it.innerText.includes('keep'))"
DONE_ONCE = DONE.replace("every", "some")  # where there may be no cell yet
SOUNDING = "() => document.querySelector('clip-player')?.media.duration > 0"


@pytest.fixture(scope="module")
def browser():
    with chromium() as browser:
        yield browser


@pytest.fixture(scope="module")
def service(tmp_path_factory):
    worker = open_demo(max_clips=9)
    with live_service(worker, tmp_path_factory.mktemp("runs")) as address:
        yield address, worker


@pytest.fixture
def open_live(browser, service):
    """Return a function that opens the page with values; faults of all pages fail the test."""
    pages, faults = [], []

    def note(line):
        if line.type == "error" and not line.text.startswith("Failed to load resource"):
            faults.append(line.text)

    def open_it(values, viewport=DESKTOP, scheme="light", address=service[0], bypass_csp=False):
        page = browser.new_page(viewport=viewport, color_scheme=scheme, bypass_csp=bypass_csp)
        page.set_default_timeout(SLOW_MS)
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.on("console", note)
        pages.append(page)
        page.goto(f"{address}/#{urlencode(values)}")
        return page

    yield open_it
    for page in pages:
        page.close()
    assert faults == []


def planned(page):
    """Return what the page says of the clips that it would make."""
    page.wait_for_selector("#plan:not(:empty)")
    return page.locator("#plan").inner_text()


def make(page):
    planned(page)
    page.get_by_role("button", name="Make", exact=True).click()


def wait_until_free(worker):
    with worker._changed:
        assert worker._changed.wait_for(lambda: not worker._in_flight, timeout=60)


def worse_than_minor(page):
    return [
        f"{violation['id']}: {violation['help']}: {violation['nodes'][0]['html'][:160]}"
        for violation in Axe().run(page).response["violations"]
        if violation["impact"] in ("moderate", "serious", "critical")
    ]


def media(page, expression, number=0):
    return page.evaluate(f"() => document.querySelectorAll('clip-player')[{number}].{expression}")


@pytest.mark.parametrize(
    ("viewport", "scheme"), [(DESKTOP, "light"), (PHONE, "dark")], ids=["desktop", "phone"]
)
def test_a_grid_is_made_and_fits_the_screen_and_is_accessible(open_live, viewport, scheme):
    page = open_live(SHORT | GRID, viewport, scheme, bypass_csp=True)  # for axe's own styles
    assert planned(page).startswith("9 clips, 9 s of sound, ")
    assert worse_than_minor(page) == []
    make(page)
    page.wait_for_function(DONE)
    assert page.locator(".listening-grid figure").count() == 9
    assert page.locator("th b").all_inner_texts() == ["1", "3", "5", "0.7", "1", "1.3"]
    lengths = page.evaluate(
        "() => [...document.querySelectorAll('clip-player')].map(it => it.media.duration)"
    )
    assert lengths == pytest.approx([1.0] * 9)
    width, window = page.evaluate("[document.documentElement.scrollWidth, window.innerWidth]")
    assert width <= window
    assert worse_than_minor(page) == []


def test_every_knob_has_the_limits_and_the_default_of_the_services_document(open_live, service):
    document = httpx2.get(f"{service[0]}/openapi.json").json()
    schemas = document["components"]["schemas"]["GenerationRequest"]["properties"]
    page = open_live({"prompt": "a"})
    planned(page)
    knobs = page.evaluate(
        """() => [...document.querySelectorAll(".knob > input[type=number]")].map(
            it => [it.name, Number(it.value), Number(it.min), Number(it.max)])"""
    )
    names = [name for name, *_ in knobs]
    assert names[:5] == ["duration", "temperature", "top_k", "top_p", "cfg_coef"]
    for name, *values in knobs:
        schema = schemas[name] | schemas[name].get("anyOf", [{}])[0]  # one that may be left out
        assert values == [schema[limit] or 0 for limit in ("default", "minimum", "maximum")]
        assert page.locator(f"#about-{name}").text_content() == schema["description"]


def test_a_clip_sounds_and_is_drawn_before_it_is_finished(open_live, service):
    page = open_live(SHORT | {"duration": 30})
    make(page)
    page.wait_for_function(SOUNDING)
    page.get_by_role("button", name="Play the clip").press(" ")
    page.wait_for_function("() => document.querySelector('clip-player').media.currentTime > 0.3")
    assert media(page, "media.complete") is False
    pixels = page.evaluate(
        """() => { const canvas = document.querySelector(".cell canvas");
            const data = canvas.getContext("2d").getImageData(0, 0, canvas.width, 1).data;
            return [data[3], data[4 * (canvas.width - 1) + 3]]; }"""
    )
    assert pixels == [255, 0]  # drawn at the start, and not yet at the end
    assert page.locator(".cell .state").inner_text().startswith("step ")
    page.get_by_role("button", name="Stop").click()
    wait_until_free(service[1])


def test_stop_frees_the_rows_and_what_was_made_stays(open_live, service):
    page = open_live(SHORT | GRID | {"duration": 30})
    make(page)
    page.wait_for_function(SOUNDING)
    made = service[1].describe()["made"]
    assert service[1].describe()["in_flight"] == 9
    page.get_by_role("button", name="Stop").click()
    wait_until_free(service[1])
    assert service[1].describe()["made"] == made  # they were given up, not finished
    assert page.locator(".cell .state").all_inner_texts() == ["stopped"] * 9
    assert media(page, "media.duration") > 0
    assert media(page, "media.complete") is True  # so that it ends when it is played
    assert page.get_by_role("button", name="Stop").is_disabled()


def test_leaving_the_page_frees_the_rows(open_live, service):
    page = open_live(SHORT | {"duration": 30})
    make(page)
    page.wait_for_function(SOUNDING)
    made = service[1].describe()["made"]
    page.goto("about:blank")
    wait_until_free(service[1])
    assert service[1].describe()["made"] == made


def test_changed_values_make_only_the_cells_that_are_new(open_live, service):
    page = open_live(SHORT | GRID)
    make(page)
    page.wait_for_function(DONE)
    made = service[1].describe()["made"]
    page.get_by_label("Values").last.fill("1, 3, 8")
    page.wait_for_function("() => document.querySelector('#plan').innerText.includes('9 clips')")
    page.get_by_role("button", name="Make", exact=True).click()
    page.wait_for_function(DONE)
    assert service[1].describe()["made"] == made + 3
    assert page.locator("th[scope=col] b").all_inner_texts() == ["1", "3", "8"]


def test_a_clip_that_becomes_part_of_a_wide_grid_is_named_and_as_large_as_the_others(open_live):
    page = open_live(SHORT)
    make(page)
    page.wait_for_function(DONE_ONCE)
    page.get_by_label("Across").first.select_option("cfg_coef")
    page.get_by_label("Values across").fill("1, 2, 3, 4, 5")
    page.wait_for_function("() => document.querySelector('#plan').innerText.includes('5 clips')")
    page.get_by_role("button", name="Make", exact=True).click()
    page.wait_for_function("() => document.querySelectorAll('.cell').length === 5")
    page.wait_for_function(DONE)
    assert page.get_by_role("button", name="Play cfg_coef 3").count() == 1
    sizes = page.locator("canvas[role=img]").evaluate_all(
        "all => all.map(it => it.width / it.height)"
    )
    assert len(set(sizes)) == 1
    page.wait_for_function(
        """() => [...document.querySelectorAll("canvas[role=img]")].every(it =>
            it.getContext("2d").getImageData(it.width / 2, 0, 1, 1).data[3] === 255)"""
    )


def test_a_clip_that_is_made_again_is_still_compared_and_one_that_is_gone_is_not(open_live):
    page = open_live(SHORT | {"across": "cfg_coef:1,3,5"})
    make(page)
    page.wait_for_function(DONE)
    compared = page.get_by_role("group", name="Compare two clips").locator(".names")
    for number in (0, 1):
        page.locator(".mark").nth(number).click()
    page.get_by_role("button", name="New seed").nth(0).click()
    page.wait_for_function(
        "() => !document.querySelector('.cell .state').innerText.includes('seed 7')"
    )
    page.wait_for_function(DONE)
    assert page.locator(".mark").all_inner_texts() == ["A", "B", "A/B"]
    page.get_by_role("button", name="Switch").click()
    page.wait_for_function("() => !document.querySelector('clip-player').media.paused")
    page.get_by_label("Values across").fill("3, 5")
    page.wait_for_function("() => document.querySelector('#plan').innerText.includes('2 clips')")
    page.get_by_role("button", name="Make", exact=True).click()
    compared.get_by_text("Choose a second clip.").wait_for()
    assert page.locator(".mark").all_inner_texts() == ["A", "A/B"]


def test_one_cell_is_made_again_alone_with_another_seed(open_live, service):
    page = open_live(SHORT | GRID)
    make(page)
    page.wait_for_function(DONE)
    made = service[1].describe()["made"]
    page.get_by_role("button", name="New seed").nth(4).click()
    page.wait_for_function(
        "() => !document.querySelectorAll('.cell')[4].innerText.includes('seed 7')"
    )
    page.wait_for_function(DONE)
    assert service[1].describe()["made"] == made + 1
    assert page.locator(".cell").nth(3).inner_text().count("seed 7") == 1


def change_middle_clip(page):
    page.get_by_role("button", name="Change temperature 1, cfg_coef 3 alone").click()
    return page.get_by_role("dialog")


def test_one_cell_is_changed_alone_and_the_address_and_what_is_kept_say_so(open_live, service):
    page = open_live(SHORT | GRID)
    make(page)
    page.wait_for_function(DONE)
    made = service[1].describe()["made"]
    dialog = change_middle_clip(page)
    assert dialog.get_by_label("top_k", exact=True).input_value() == "250"
    dialog.get_by_label("top_k", exact=True).fill("5")
    dialog.get_by_label("duration", exact=True).fill("2")
    dialog.get_by_role("button", name="Make this clip").click()
    changed = page.locator(".cell").nth(4)
    changed.get_by_text("seed 7; changed: duration 2, top_k 5").wait_for()
    assert service[1].describe()["made"] == made + 1
    assert page.evaluate("document.activeElement.className") == "play"  # where the button was

    other = open_live({})
    other.goto("about:blank")
    other.goto(page.url)
    make(other)
    other.wait_for_function(DONE)
    states = [it.locator(".cell .state").all_inner_texts() for it in (page, other)]
    assert states[0] == states[1] and states[0].count("seed 7") == 8
    other.get_by_role("button", name="Keep 9 clips").click()
    assert "lab.Sweep.from_rows(" in other.get_by_role("region", name="Python").inner_text()

    page.get_by_role("button", name="Undo the change").click()
    changed.get_by_text("seed 7", exact=True).wait_for()
    assert "clip=" not in page.url


def test_a_change_that_cannot_be_is_said_in_its_dialog_and_makes_nothing(open_live, service):
    page = open_live(SHORT | GRID, bypass_csp=True)  # for axe's own styles
    make(page)
    page.wait_for_function(DONE)
    made, dialog = service[1].describe()["made"], change_middle_clip(page)
    dialog.get_by_label("duration", exact=True).fill("4000")
    dialog.get_by_label("duration", exact=True).press("Enter")
    fault = dialog.get_by_role("alert").filter(has_text="duration must be a number from 1 to")
    fault.wait_for()
    assert dialog.get_by_label("duration", exact=True).get_attribute("aria-invalid") == "true"
    assert worse_than_minor(page) == []
    page.keyboard.press("Escape")
    dialog.wait_for(state="hidden")
    assert page.evaluate("document.activeElement.className") == "change"
    assert service[1].describe()["made"] == made


def test_an_address_with_changes_that_nobody_could_make_opens_the_page(open_live):
    strange = ['{"a":', "[1,2]", '[{"temperature":1},{"__proto__":{"x":1},"top_k":[9]}]', "null"]
    values = [*(SHORT | {"down": "temperature:1,2"}).items(), *(("clip", it) for it in strange)]
    page = open_live(values)
    assert planned(page).startswith("2 clips")


def test_a_knob_that_is_turned_makes_the_clip_at_once(open_live, service):
    page = open_live(SHORT | {"at-once": ""})
    planned(page)
    assert page.locator(".cell").count() == 0  # an address makes nothing by itself
    page.get_by_role("button", name="Make", exact=True).click()
    page.wait_for_function(DONE_ONCE)
    made = service[1].describe()["made"]
    page.get_by_label("temperature, slider").press("ArrowRight")
    value = page.get_by_label("temperature", exact=True).input_value()
    assert float(value) > 1 and f"temperature={value}" in page.url
    page.wait_for_function(
        "() => document.querySelector('.cell .state').innerText.startsWith('step')"
    )
    page.wait_for_function(DONE_ONCE)
    assert service[1].describe()["made"] == made + 1


def test_the_address_opens_the_same_page(open_live):
    page = open_live(SHORT | GRID)
    planned(page)
    page.get_by_label("Prompt", exact=True).fill("a <b>drum</b> & bass?")
    page.get_by_label("top_k", exact=True).fill("50")
    other = open_live({})
    other.goto("about:blank")
    other.goto(page.url)
    planned(other)
    assert other.get_by_label("Prompt", exact=True).input_value() == "a <b>drum</b> & bass?"
    assert other.get_by_label("top_k", exact=True).input_value() == "50"
    assert other.get_by_label("Seed", exact=True).input_value() == "7"
    assert other.get_by_label("Values down").input_value() == "0.7,1,1.3"


def test_another_address_in_the_same_tab_resets_what_it_does_not_have(open_live, service):
    page = open_live(SHORT | {"down": "temperature:1,2", "top_k": 50, "begin_with": "0" * 64})
    page.wait_for_selector("#problem:not(:empty)")  # nobody sent this sound
    page.goto(f"{service[0]}/#{urlencode(SHORT)}")
    page.wait_for_function("() => document.querySelector('#plan').innerText.startsWith('1 clip')")
    assert page.get_by_label("top_k", exact=True).input_value() == "250"
    page.get_by_label("top_p", exact=True).fill("0.5")
    page.wait_for_function("() => location.hash.includes('top_p=0.5')")
    assert "begin_with" not in page.evaluate("location.hash")


def test_values_that_are_no_numbers_or_emptied_are_asked_for_and_the_grid_stays(open_live):
    page = open_live(SHORT | {"across": "cfg_coef:1,3"})
    make(page)
    page.wait_for_function(DONE)
    for values, fault in (
        ("1, x", "The values of cfg_coef must be numbers, separated by commas."),
        ("0,7", "If 0.7 is meant, write it with a point; if both values are, with a space: 0, 7."),
        ("", "Type the values of cfg_coef, separated by commas."),
    ):
        page.get_by_label("Values across").fill(values)
        page.get_by_role("alert").filter(has_text=fault).wait_for()
    assert page.get_by_label("Values across").get_attribute("aria-invalid") == "true"
    assert page.get_by_role("button", name="Make", exact=True).is_disabled()
    page.get_by_label("Values across").fill("0, 7")
    page.wait_for_selector("#make:enabled")
    assert page.locator(".cell").count() == 2


def test_a_number_that_is_emptied_is_its_default_and_an_emptied_seed_is_drawn(open_live):
    page = open_live(SHORT | {"duration": 2, "seed": 0})
    planned(page)
    page.get_by_label("duration", exact=True).fill("")
    page.get_by_label("Seed", exact=True).fill("")
    page.get_by_label("Seed", exact=True).press("Tab")
    assert int(page.get_by_label("Seed", exact=True).input_value()) > 0
    page.wait_for_function("() => document.querySelector('#plan').innerText.includes(', 8 s of')")


def test_a_clip_goes_on_from_a_sound_file(open_live, tmp_path):
    (tmp_path / "start.wav").write_bytes(sound_file(sine(220, amplitude=0.5, duration_s=0.5)))
    page = open_live(SHORT)
    planned(page)
    page.get_by_text("More parameters").click()
    page.get_by_label("begin_with", exact=True).set_input_files(tmp_path / "start.wav")
    page.wait_for_function("() => location.hash.includes('begin_with=')")
    make(page)
    page.wait_for_function(DONE)
    assert media(page, "media.duration") == pytest.approx(1.0)
    (tmp_path / "text.wav").write_text("no sound")
    page.get_by_label("begin_with", exact=True).set_input_files(tmp_path / "text.wav")
    page.wait_for_selector("#problem:not(:empty)")
    assert page.get_by_label("begin_with", exact=True).input_value() == ""
    assert "begin_with" not in page.evaluate("location.hash")
    assert page.get_by_role("button", name="Make", exact=True).is_enabled()


def test_of_two_sound_files_the_later_choice_counts_and_make_waits_for_it(open_live, tmp_path):
    page, uploads = open_live(SHORT), []
    planned(page)
    page.route(
        "**/sources", lambda upload: uploads.append(upload)
    )  # they arrive when the test lets them
    page.get_by_text("More parameters").click()
    sounds = [sound_file(sine(hertz, amplitude=0.5, duration_s=0.5)) for hertz in (220, 440)]
    for number, sound in enumerate(sounds):
        (tmp_path / f"{number}.wav").write_bytes(sound)
        with page.expect_request("**/sources"):
            page.get_by_label("begin_with", exact=True).set_input_files(tmp_path / f"{number}.wav")
    make_button = page.get_by_role("button", name="Make", exact=True)
    assert make_button.is_disabled()
    digest = Source.of_bytes(sounds[1], "a sound").digest
    for upload in reversed(uploads):
        with page.expect_response("**/sources") as answer:
            upload.continue_()
        answer.value.finished()
        page.wait_for_function("digest => location.hash.includes(digest)", arg=digest)
    page.wait_for_selector("#make:enabled")
    assert f"begin_with={digest}" in page.evaluate("location.hash")


def test_a_value_outside_its_limits_is_named_at_its_input(open_live):
    page = open_live(SHORT | {"duration": 1})
    planned(page)
    page.get_by_label("duration", exact=True).fill("4000")
    page.wait_for_selector("#problem:not(:empty)")
    assert page.get_by_role("alert").inner_text().startswith("duration must be a number from 1 to")
    assert page.get_by_label("duration", exact=True).get_attribute("aria-invalid") == "true"
    assert page.get_by_role("button", name="Make", exact=True).is_disabled()


def test_everything_works_by_keyboard_alone(open_live):
    page = open_live(SHORT | {"down": "temperature:0.7,1.3"})
    planned(page)
    page.get_by_label("Prompt", exact=True).focus()
    for _ in range(40):
        page.keyboard.press("Tab")
        if page.evaluate("() => document.activeElement.id") == "make":
            break
    page.keyboard.press("Enter")
    page.wait_for_function(DONE)
    page.get_by_role("button", name="Play temperature 0.7").focus()
    page.keyboard.press("a")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("a")
    page.keyboard.press(" ")
    page.wait_for_function("() => !document.querySelectorAll('clip-player')[1].media.paused")
    page.keyboard.press("x")
    page.wait_for_function("() => !document.querySelectorAll('clip-player')[0].media.paused")
    assert media(page, "media.paused", 1) is True


def test_loudness_matching_changes_what_is_heard_and_nothing_else(open_live):
    page = open_live(SHORT)
    make(page)
    page.wait_for_function(DONE)
    page.get_by_label("loudness-matched").check()
    gain_db = media(page, "media.gainDb")
    assert gain_db != 0
    page.get_by_label("as made").check()
    assert media(page, "media.gainDb") == 0


def test_eighty_one_cells_have_a_picture_and_a_sound_each(open_live, service):
    nine = ",".join(map(str, range(1, 10)))
    page = open_live(SHORT | {"down": f"seed:{nine}", "across": f"cfg_coef:{nine}"})
    assert planned(page).startswith("81 clips")
    make(page)
    page.wait_for_function(DONE, timeout=4 * SLOW_MS)
    lengths = page.evaluate(
        "() => [...document.querySelectorAll('clip-player')].map(it => it.media.duration)"
    )
    assert lengths == pytest.approx([1.0] * 81)
    width, window = page.evaluate("[document.documentElement.scrollWidth, window.innerWidth]")
    assert width <= window
    controls = page.locator(".controls").evaluate_all("all => all.map(it => it.clientHeight)")
    assert max(controls) < 40  # the button that plays and A/B are in one row
    page.get_by_role("button", name="Play seed 9").last.press(" ")
    page.wait_for_function("() => [...document.querySelectorAll('clip-player')].at(-1).at > 0.1")


def test_two_tabs_make_their_clips_beside_each_other(open_live):
    pages = [open_live(SHORT | {"seed": seed, "duration": 2}) for seed in (1, 2)]
    for page in pages:
        make(page)
    for page, seed in zip(pages, (1, 2), strict=True):
        page.wait_for_function(DONE)
        assert page.locator(".cell .state").inner_text() == f"seed {seed}"


def test_a_service_that_is_gone_is_said_and_what_was_made_stays(open_live):
    with contextlib.ExitStack() as stack:
        address = stack.enter_context(live_service(open_demo(max_clips=2)))
        page = open_live(SHORT | {"duration": 30}, address=address)
        make(page)
        page.wait_for_function(SOUNDING)
    page.wait_for_selector(".cell.failed")
    heard_s = media(page, "media.duration")
    assert 0 < heard_s < 30
    page.get_by_role("button", name="Make", exact=True).click()
    page.wait_for_function(
        "() => document.querySelector('#problem').innerText.includes('cannot be reached')"
    )


def record_what_is_heard(page):
    """Note every part of sound that is played: from when until when, in seconds."""
    page.evaluate(
        """() => {
            window.heard = [];
            const { start, stop } = AudioBufferSourceNode.prototype;
            AudioBufferSourceNode.prototype.start = function (when) {
                window.heard.push(this.part = { when, end: when + this.buffer.duration });
                start.call(this, when);
            };
            AudioBufferSourceNode.prototype.stop = function () {
                const { part, context } = this;
                part.end = Math.max(part.when, Math.min(part.end, context.currentTime));
                stop.call(this);
            };
            window.steps = [];
            new MutationObserver((changes) => {
                for (const { target } of changes) window.steps.push(target.value);
            }).observe(
                document.querySelector("#cells"), { attributeFilter: ["value"], subtree: true },
            );
        }"""
    )


def test_on_a_slow_network_sound_pauses_and_goes_on_without_a_gap_or_an_overlap(open_live, service):
    request = SHORT | {"duration": 5}
    page = open_live(request)
    planned(page)
    record_what_is_heard(page)
    network = page.context.new_cdp_session(page)
    slow = {"offline": False, "latency": 100, "downloadThroughput": 40_000, "uploadThroughput": -1}
    network.send("Network.emulateNetworkConditions", slow)  # half of what the sound needs
    make(page)
    page.wait_for_function(SOUNDING)
    page.get_by_role("button", name="Play the clip").press(" ")
    page.get_by_text("its sound arrives slower than it plays").wait_for()
    assert media(page, "playing") is True
    page.wait_for_function("() => document.querySelector('clip-player').media.ended")

    parts = page.evaluate("window.heard")
    assert sum(it["end"] - it["when"] for it in parts) == pytest.approx(5, abs=0.02)
    played = [part for part in parts if part["end"] > part["when"]]
    ends = [part["end"] for part in played]
    starts = [part["when"] for part in played]
    assert all(start > end - 1e-4 for end, start in zip(ends, starts[1:], strict=False))
    assert max(start - end for end, start in zip(ends, starts[1:], strict=False)) > 0.5  # it waited
    steps = page.evaluate("window.steps")
    assert len(set(steps)) > 3 and steps == sorted(steps)
    whole = httpx2.post(
        f"{service[0]}/generate_endpoint",
        json=request,
        headers={"Accept": "audio/wav"},
        timeout=120,
    )
    expected = decode_audio(whole.content)[0][0]
    samples = page.evaluate("() => [...document.querySelector('clip-player').media.samples]")
    np.testing.assert_allclose(np.array(samples) / 32767, expected, atol=3e-4)


def test_clips_are_listened_to_blind_in_a_tab_of_their_own(open_live):
    page = open_live(SHORT | {"across": "cfg_coef:1,3"})
    make(page)
    page.wait_for_function(DONE)
    with page.expect_popup() as opening:
        page.get_by_role("button", name="Listen blind").click()
    test = opening.value
    test.set_default_timeout(SLOW_MS)
    test.get_by_label("Your name").fill("Ada")
    test.get_by_label("Your name").press("Enter")
    test.get_by_role("heading", name="Which one do you prefer?").wait_for()
    for key in "ab":
        test.locator(f"#sounds button[data-key={key}]:enabled").wait_for()
        test.keyboard.press(key)
    test.get_by_role("button", name="Prefer B").click()
    test.get_by_text("Ada: 1 answer so far").wait_for()
    test.close()
    page.get_by_role("link", name="Listen to it blind").wait_for()


def test_where_no_folders_are_kept_clips_are_downloaded_with_their_code(open_live, tmp_path):
    with live_service(sine_worker()) as address:
        page = open_live(SHORT | {"across": "cfg_coef:1,3"}, address=address)
        make(page)
        page.wait_for_function(DONE)
        assert not page.get_by_role("button", name="Listen blind").is_visible()
        with page.expect_download() as download:
            page.get_by_role("button", name="Download 2 clips").click()
        zipfile.ZipFile(download.value.path()).extractall(tmp_path)
        (folder,) = tmp_path.iterdir()
        assert download.value.suggested_filename == f"{folder.name}.zip"
        assert folder.name in page.get_by_role("region", name="Command").inner_text()
        with page.expect_download(), page.expect_response("**/live/kept"):  # stored anew
            page.get_by_role("button", name="Download 2 clips").click()
    assert len(lab.Results.open(folder).frame) == 2


def test_clips_are_kept_and_their_report_is_opened(open_live):
    page = open_live(SHORT | {"across": "cfg_coef:1,3"})
    make(page)
    page.wait_for_function(DONE)
    page.get_by_label("keep").first.uncheck()
    page.get_by_label("keep").first.check()
    page.get_by_role("button", name="Keep 2 clips").click()
    assert "--cfg-coef 1,3" in page.get_by_role("region", name="Command").inner_text()
    assert "lab.Sweep(" in page.get_by_role("region", name="Python").inner_text()
    report = page.get_by_role("link", name="Open the report")
    report.wait_for(timeout=3 * SLOW_MS)
    page.goto(report.evaluate("link => link.href"))
    assert page.locator("clip-player").count() == 2
    page.evaluate("() => { document.querySelector('audio').muted = true; }")
    page.locator(".play").first.press("ArrowRight")
    page.wait_for_function("() => document.querySelector('audio').currentTime > 0.9")


def test_the_links_of_what_was_kept_go_when_the_service_is_restarted(open_live, tmp_path):
    with live_service(sine_worker(), tmp_path) as address:
        page = open_live(SHORT, address=address)
        make(page)
        page.wait_for_function(DONE_ONCE)
        page.get_by_role("button", name="Keep 1 clip").click()
        page.get_by_role("link", name="Listen to it blind").wait_for()
    with live_service(sine_worker(), tmp_path, port=int(address.rpartition(":")[2])):
        page.evaluate("() => dispatchEvent(new Event('focus'))")  # as when one comes back to it
        page.get_by_text("The service has been restarted since").wait_for()
    assert page.locator("#kept a").count() == 0
    assert "--seed 7" in page.get_by_role("region", name="Command").inner_text()


def test_a_service_with_a_key_asks_for_it(open_live):
    with live_service(sine_worker(), settings=WebSettings(api_key="secret")) as address:
        page = open_live(SHORT, address=address)
        page.get_by_label("This service has a key").fill("secret")
        page.get_by_label("This service has a key").press("Enter")
        assert planned(page).startswith("1 clip")
