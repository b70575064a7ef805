"""A report, opened in a real browser from the file system, shows and plays every clip."""

from __future__ import annotations

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import expect

from musicgen_lab import make_report
from musicgen_lab.listening.grid import listen
from musicgen_lab.runs.run_table import RunTable
from tests.e2e.browser import DESKTOP, PHONE, chromium, open_page, show_everything
from tests.support.report_runs import make_run

CLIPS, PLACES = 7, 9  # of the shared run: one clip failed and one is not made yet
DURATION_S = 2.0
SCREENS = [(DESKTOP, "light"), (PHONE, "dark")]


@pytest.fixture(scope="module")
def browser():
    with chromium() as browser:
        yield browser


@pytest.fixture(scope="module")
def large_report(tmp_path_factory):
    """The page of 50 requests: a 5 x 5 grid of two seeds."""
    folder = make_run(
        tmp_path_factory.mktemp("large"),
        temperature=[0.5, 0.75, 1, 1.25, 1.5],
        cfg_coef=[1, 2, 3, 5, 8],
        seed=range(2),
        failed=[7],
        silent=[30],
        missing=[45],
    )
    return make_report(folder, formats=["html"], progress=False)


@pytest.fixture(params=SCREENS, ids=["desktop", "phone"])
def page(request, browser, report):
    viewport, scheme = request.param
    page = open_page(browser, report, viewport, scheme)
    yield page
    page.close()


def test_there_are_as_many_players_and_pictures_as_clips_and_nothing_fails(page):
    show_everything(page)
    assert page.locator("audio").count() == CLIPS
    assert page.locator(".listening-grid figure img").count() == CLIPS
    assert page.locator(".listening-grid figure").count() == PLACES
    widths = page.evaluate("[...document.images].map(image => image.naturalWidth)")
    assert len(widths) > CLIPS  # the figures besides
    assert all(widths)
    assert page.faults == []


def test_nothing_is_wider_than_the_window(page):
    show_everything(page)
    width, window = page.evaluate("[document.documentElement.scrollWidth, window.innerWidth]")
    assert width <= window


def test_no_figure_has_to_be_scrolled_sideways_to_be_read(page):
    show_everything(page)
    wide = "[...document.querySelectorAll('.figure')].filter(it => it.scrollWidth > it.clientWidth)"
    assert page.locator(".figure").count() > 3
    assert page.evaluate(f"{wide}.length") == 0
    narrowest = "Math.min(...[...document.querySelectorAll('.figure img:not([hidden])')]"
    shown = ".filter(it => it.width).map(it => it.width / it.getAttribute('width')))"
    assert (
        page.evaluate(narrowest + shown) >= 0.75
    )  # of the size at which its text is as the page's


def test_no_word_is_broken_and_no_player_is_too_narrow_to_be_pressed(page):
    show_everything(page)
    sizes = page.evaluate(
        "[...document.querySelectorAll('.play')].map(it => [it.clientWidth, it.clientHeight])"
    )
    assert len(sizes) == CLIPS
    assert min(width for width, _ in sizes) > 90 and min(height for _, height in sizes) >= 30
    heads = page.evaluate(
        """[...document.querySelectorAll(".listening-grid th")].map(head => {
            const words = document.createRange();
            words.selectNodeContents(head.firstChild);
            return words.getClientRects().length - 1;
        })"""
    )
    assert max(heads) == 0  # each field's name stands on one line


def test_every_clip_can_be_played_to_its_end(page):
    durations = page.evaluate(
        """() => Promise.all([...document.querySelectorAll("audio")].map(player =>
            new Promise((resolve, reject) => {
                player.addEventListener("canplaythrough", () => resolve(player.duration));
                player.addEventListener("error", () => reject(new Error(player.error.message)));
                player.preload = "auto";
                player.load();
            })))"""
    )
    assert durations == pytest.approx([DURATION_S] * CLIPS, abs=0.1)
    ended_at = page.evaluate(
        """() => new Promise((resolve, reject) => {
            const player = document.querySelector("audio");
            player.addEventListener("ended", () => resolve(player.currentTime));
            player.muted = true;
            player.play().catch(reject);
        })"""
    )
    assert ended_at == pytest.approx(DURATION_S, abs=0.1)
    assert page.faults == []


def test_starting_a_player_pauses_the_one_before_it(page):
    paused = page.evaluate(
        """async () => {
            const [first, second] = document.querySelectorAll("audio");
            first.muted = second.muted = true;
            first.loop = true;
            await first.play();
            const pause = new Promise(resolve => first.addEventListener("pause", resolve));
            await second.play();
            await pause;
            return [first.paused, second.paused];
        }"""
    )
    assert paused == [True, False]


def test_players_show_their_length_before_and_where_they_are_while_they_play(page):
    button = page.locator(".play").first
    assert page.locator(".play").all_inner_texts() == ["2.0 s"] * CLIPS
    assert button.get_attribute("aria-label") == "Play temperature 0.7, cfg_coef 1, 2 s"
    page.evaluate("document.querySelector('audio').muted = true")
    button.press("ArrowRight")  # by keyboard: a second on
    page.wait_for_function("document.querySelector('audio').currentTime > 1")
    assert button.get_attribute("aria-pressed") == "true"
    assert button.inner_text().startswith("1.") and button.inner_text().endswith(" / 2.0 s")
    button.click()
    assert page.evaluate("document.querySelector('audio').paused")


def test_two_clips_are_compared_at_the_same_moment(page):
    page.evaluate("document.querySelectorAll('audio').forEach(it => { it.muted = true; })")
    first, second = (page.locator("clip-player").nth(index) for index in (0, 3))
    bar = page.get_by_role("group", name="Compare two clips")
    assert bar.count() == 0
    first.locator(".play").press("a")  # by keyboard, or with its button
    second.locator(".mark").click()
    assert "A temperature 0.7, cfg_coef 1" in bar.inner_text()
    assert second.locator(".mark").inner_text() == "B"
    first.locator(".play").press("ArrowRight")
    page.wait_for_function("document.querySelectorAll('audio')[0].currentTime > 1.2")

    first.locator(".play").press("x")

    page.wait_for_function("!document.querySelectorAll('audio')[3].paused")
    at, paused = page.evaluate(
        "[document.querySelectorAll('audio')[3].currentTime, "
        "document.querySelectorAll('audio')[0].paused]"
    )
    assert at > 1.2 and paused
    bar.get_by_role("button", name="Clear").click()
    assert not bar.is_visible() and second.locator(".mark").inner_text() == "A/B"


def test_the_arrow_keys_go_to_another_clip_at_the_same_moment(page):
    page.evaluate("document.querySelectorAll('audio').forEach(it => { it.muted = true; })")
    page.locator(".play").first.press("ArrowRight")
    page.wait_for_function("document.querySelector('audio').currentTime > 1")
    page.keyboard.press("ArrowDown")
    page.wait_for_function("document.querySelectorAll('audio')[1].currentTime > 1")
    assert page.evaluate("document.activeElement.ariaLabel").startswith("Play temperature 0.7, cfg")
    page.keyboard.press("Escape")
    assert page.evaluate("[...document.querySelectorAll('audio')].every(it => it.paused)")


def test_waveforms_are_drawn_where_they_are_seen(browser, large_report):
    page = open_page(browser, large_report, PHONE, "light")
    drawn = "[...document.querySelectorAll('clip-player')].filter(it => it.wave).length"
    page.locator("clip-player").first.scroll_into_view_if_needed()
    page.wait_for_function(f"{drawn} > 0")
    assert page.evaluate(drawn) < 40 < page.locator("clip-player").count()
    assert page.evaluate("document.querySelector('.waveform div').shadowRoot !== null")
    page.close()


def test_a_click_on_a_picture_plays_from_there(page):
    page.evaluate("document.querySelector('audio').muted = true")
    picture = page.locator(".timeline").first
    size = picture.bounding_box()
    picture.click(position={"x": size["width"] / 2, "y": size["height"] / 2})
    page.wait_for_function("!document.querySelector('audio').paused")
    assert page.evaluate("document.querySelector('audio').currentTime") == pytest.approx(1, abs=0.6)
    assert page.evaluate("parseFloat(document.querySelector('.playhead').style.left)") >= 49


def test_links_to_all_sections_stay_in_sight(page):
    links = page.get_by_role("navigation", name="Sections").get_by_role("link")
    heads = page.locator("main h2")
    assert links.all_inner_texts() == heads.all_inner_texts()
    links.last.click()
    expect(heads.last).to_be_in_viewport()
    expect(links.last).to_be_in_viewport()


def test_a_page_without_its_folder_says_so_and_one_with_it_does_not(
    browser, page, report, tmp_path
):
    assert not page.locator(".without-folder").is_visible()
    alone = tmp_path / "report.html"
    alone.write_bytes(report.read_bytes())
    without = open_page(browser, alone, DESKTOP, "light")
    without.locator(".without-folder").wait_for(state="visible")
    without.close()


def test_row_and_column_labels_stay_in_sight_on_a_phone(browser, large_report):
    page = open_page(browser, large_report, PHONE, "light")
    left, top = page.evaluate(
        """() => {
            const box = document.querySelector(".listening-scroll");
            box.scrollTo(300, 200);
            const [row, column] = ['th[scope="row"]', 'th[scope="col"]:last-child'].map(
                (head) => box.querySelector(head).getBoundingClientRect());
            const edge = box.getBoundingClientRect();
            return [row.left - edge.left, column.top - edge.top];
        }"""
    )
    assert (left, top) == pytest.approx((0, 0), abs=1)
    page.close()


def test_nothing_is_loaded_before_it_is_played(page):
    loaded = page.evaluate(
        """performance.getEntriesByType("resource").map(it => it.name)
            .filter(name => /\\.(mp3|wav)$/.test(name)).length"""
    )
    assert loaded == 0
    assert page.evaluate("[...document.querySelectorAll('audio')].every(it => !it.readyState)")


def test_no_two_things_overlap_and_no_label_is_clipped(page):
    show_everything(page)
    overlaps = page.evaluate(
        """() => {
            const boxes = [...document.querySelectorAll(
                "h1, h2, h3, .lead, .facts > div, .findings li, .figure, .loudness, " +
                ".listening figure, .scroll, .definitions > div, pre"
            )].map(it => [it, it.getBoundingClientRect()]);
            const found = [];
            for (const [i, [one, a]] of boxes.entries())
                for (const [other, b] of boxes.slice(i + 1))
                    if (!one.contains(other) && a.right > b.left + 1 && b.right > a.left + 1
                        && a.bottom > b.top + 1 && b.bottom > a.top + 1)
                        found.push([one.textContent.slice(0, 40), other.textContent.slice(0, 40)]);
            return found;
        }"""
    )
    assert overlaps == []
    clipped = page.evaluate(
        """[...document.querySelectorAll("h1, h2, dd, dt, figcaption, button, th, label, legend")]
            .filter(it => it.scrollWidth > it.clientWidth + 1 && it.clientWidth > 0)
            .filter(it => getComputedStyle(it).display !== "inline")
            .map(it => it.textContent)"""
    )
    assert clipped == []


def test_the_loudness_switch_changes_what_the_players_play(page):
    made = page.evaluate("[...document.querySelectorAll('audio')].map(it => it.src)")
    page.get_by_label("loudness-matched").check()
    matched = page.evaluate("[...document.querySelectorAll('audio')].map(it => it.src)")
    changed = [one != other for one, other in zip(made, matched, strict=True)]
    assert sum(changed) == CLIPS - 1  # all but the silent one
    assert all(
        link.endswith(".matched.mp3")
        for link, is_new in zip(matched, changed, strict=True)
        if is_new
    )
    page.get_by_label("as made").check()
    assert page.evaluate("[...document.querySelectorAll('audio')].map(it => it.src)") == made
    assert page.faults == []


def test_the_table_sorts_by_a_column_both_ways_with_the_unknown_last(page):
    def column(number):
        return page.evaluate(
            """number => [...document.querySelectorAll(".clips.sortable tbody tr")]
                .map(row => row.cells[number].dataset.sort)""",
            number,
        )

    heads = page.locator(".clips.sortable thead button")
    number = [head.split("\n")[0] for head in heads.all_inner_texts()].index("Brightness")
    head = page.locator(".clips.sortable thead th").nth(number)
    heads.nth(number).press("Enter")  # by keyboard
    rising = column(number)
    known = [float(text) for text in rising if text]
    assert known == sorted(known) and rising[len(known) :] == [""] * (len(rising) - len(known))
    assert head.get_attribute("aria-sort") == "ascending"
    heads.nth(number).press("Enter")
    falling = [float(text) for text in column(number) if text]
    assert falling == known[::-1]
    assert head.get_attribute("aria-sort") == "descending"


def test_everything_that_can_be_used_is_reached_by_the_tab_key(page):
    wanted = page.evaluate(
        """[...document.querySelectorAll(
            "a[href], .play, .mark, .scroll, .figure, .listening-scroll, .clips button")].length"""
    )
    reached = set()
    for _ in range(2 * wanted):
        page.keyboard.press("Tab")
        reached.add(
            page.evaluate("""[...document.querySelectorAll("*")].indexOf(document.activeElement)""")
        )
        if len(reached) >= wanted + 2:
            break
    assert len(reached) >= wanted


def worse_than_minor(page):
    return [
        f"{violation['id']}: {violation['help']}: {violation['nodes'][0]['html'][:160]}"
        for violation in Axe().run(page).response["violations"]
        if violation["impact"] in ("moderate", "serious", "critical")
    ]


def test_axe_finds_nothing_worse_than_minor(page):
    show_everything(page)
    assert worse_than_minor(page) == []


@pytest.mark.parametrize(("viewport", "scheme"), SCREENS, ids=["desktop", "phone"])
def test_a_page_of_fifty_clips_is_whole_and_as_accessible(browser, large_report, viewport, scheme):
    page = open_page(browser, large_report, viewport, scheme)
    show_everything(page)
    assert page.locator("audio").count() == 48
    assert page.locator(".clips.sortable tbody tr").count() == 49
    width, window = page.evaluate("[document.documentElement.scrollWidth, window.innerWidth]")
    assert width <= window
    assert worse_than_minor(page) == []
    assert page.faults == []
    page.close()


def test_on_paper_it_is_light_and_whole_without_players(browser, large_report):
    paper = {"width": 700, "height": 1000}  # A4 between its margins
    page = open_page(browser, large_report, paper, "dark")
    light, dark = (
        page.locator(f".lab-figure img{kind}") for kind in (":not([hidden])", "[hidden]")
    )
    assert dark.first.is_visible() and not light.first.is_visible()
    page.emulate_media(media="print")
    assert light.first.is_visible() and not dark.first.is_visible()
    show_everything(page)
    assert page.evaluate("getComputedStyle(document.body).color") == "rgb(29, 29, 34)"
    assert not page.locator(".play").first.is_visible()
    cut = page.evaluate(
        """[...document.querySelectorAll(".scroll, .listening-scroll, .figure, pre")]
            .map(it => [it.scrollWidth - it.clientWidth, it.scrollHeight - it.clientHeight, it])
            .filter(([across, down, it]) => across > 1 || down > 1)
            .map(([across, down, it]) => [it.ariaLabel ?? it.textContent, across, down])"""
    )
    assert cut == []
    page.close()


def test_a_grid_of_nine_columns_fits_the_screen_and_scrolls_by_itself_on_a_phone(browser, tmp_path):
    folder = make_run(tmp_path, temperature=[0.7, 1], cfg_coef=range(1, 10))
    path = make_report(folder, formats=["html"], progress=False)
    for viewport in (DESKTOP, PHONE):
        page = open_page(browser, path, viewport, "light")
        width, window = page.evaluate("[document.documentElement.scrollWidth, window.innerWidth]")
        assert width <= window
        sizes = page.locator(".play").evaluate_all("all => all.map(it => it.clientWidth)")
        assert len(sizes) == 18 and min(sizes) >= 60
        rows = page.locator(".controls").evaluate_all("all => all.map(it => it.clientHeight)")
        assert max(rows) < 40  # the button that plays and A/B are in one row
        page.close()


def test_players_of_a_notebook_work_beside_a_module_loader(browser, tmp_path):
    shown = listen(RunTable.open(make_run(tmp_path / "run", seed=[0, 1]))).data
    loader = "<script>window.define = Object.assign(() => {}, {amd: {}})</script>"
    (tmp_path / "page.html").write_text(f"<!DOCTYPE html>{loader}{shown}{shown}", encoding="utf-8")
    page = open_page(browser, tmp_path / "page.html", DESKTOP, "light")
    page.evaluate("document.querySelectorAll('audio').forEach(it => { it.muted = true; })")
    assert page.locator("clip-player .play").count() == 4
    page.locator(".play").nth(1).press("ArrowRight")
    page.wait_for_function("document.querySelectorAll('audio')[1].currentTime > 0.5")
    page.wait_for_function("document.querySelectorAll('clip-player')[1].wave")
    assert page.faults == []
    page.close()
