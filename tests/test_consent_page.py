"""The consent page of the development authorization server in a real browser."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import parse_qs, urlencode, urlsplit

import browsers
import processes
import pytest
from flows import COUNTERPARTS
from small_server import Answer, serving

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

RESOURCE = "http://127.0.0.1:8000/mcp"
HOSTILE = '<img src=x onerror=alert(1)>"&amp;\u202e'
pytestmark = pytest.mark.full  # a browser, which takes 20 seconds to start for the first time
ENOUGH = 4.5  # WCAG 2.2, 1.4.3, of ordinary text


class App(NamedTuple):
    """An application that the browser comes back to, which goes on to another origin; it can frame other pages."""

    port: int

    @property
    def redirect_uri(self) -> str:
        return f"http://127.0.0.1:{self.port}/callback"


def page_of_the_app(port: int, path: str) -> Answer:
    parts = urlsplit(path)
    if parts.path == "/callback":
        return Answer(location=f"http://localhost:{port}/home?{parts.query}")
    framed = parse_qs(parts.query).get("frame", [""])[0].replace("&", "&amp;")
    return Answer(f"<!doctype html><title>app</title>back at the app <iframe src='{framed}'></iframe>")


@pytest.fixture(scope="module")
def app() -> Iterator[App]:
    with serving(page_of_the_app) as port:
        yield App(port)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with browsers.browser() as running:
        yield running


@pytest.fixture(scope="module")
def issuer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    browsers.require_chromium()
    directory = tmp_path_factory.mktemp("authority")
    (directory / "clock").write_text("0", encoding="ascii")
    names = {"app": "A notes app", "hostile": HOSTILE, "long": "A name " + "without_any_end" * 12}
    registered = [
        {
            "client_id": client_id,
            "client_name": name,
            "redirect_uris": ["http://127.0.0.1/callback"],
            "token_endpoint_auth_method": "none",
        }
        for client_id, name in names.items()
    ]
    port = processes.free_port()
    url = f"http://127.0.0.1:{port}"
    env = {
        "ISSUER": url,
        "RESOURCE": RESOURCE,
        "JOURNAL": str(directory / "journal"),
        "CLOCK": str(directory / "clock"),
        "CLIENTS": json.dumps(registered),
    }
    with processes.uvicorn("flow_servers:authority", app_dir=COUNTERPARTS, port=port, env=env, args=["--factory"]):
        yield url


Ask = Callable[..., str]


@pytest.fixture
def ask(issuer: str, app: App) -> Ask:
    """The URL of an authorization request."""

    def url(client_id: str = "app", scope: str = "mcp:read mcp:write", **more: str) -> str:
        query = {
            "response_type": "code",
            "client_id": client_id,
            "redirect_uri": app.redirect_uri,
            "state": "the state",
            "scope": scope,
            "resource": RESOURCE,
            "code_challenge": "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM",
            "code_challenge_method": "S256",
        }
        return f"{issuer}/authorize?{urlencode(query | more)}"

    return url


@contextlib.contextmanager
def opened(browser: Browser, url: str, **options: Any) -> Generator[Page]:
    """A page; script errors, dialogs and policy violations fail the test."""
    complaints: list[str] = []
    with browsers.page_of(browser, **options) as page:
        page.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("dialog", lambda dialog: complaints.append(dialog.message))
        page.goto(url)
        yield page
    assert complaints == []


def came_back(page: Page, app: App) -> dict[str, str]:
    """The answer that the application got."""
    page.wait_for_url("**/home?*")
    assert "back at the app" in page.inner_text("body")
    assert page.url.startswith(f"http://localhost:{app.port}/home?")
    return {name: values[0] for name, values in parse_qs(urlsplit(page.url).query).items()}


@pytest.mark.parametrize("scripts", [True, False], ids=["AS-16 AS-17 allow", "AS-16 AS-17 allow, without JavaScript"])
def test_allow_returns_a_code(browser: Browser, issuer: str, ask: Ask, app: App, scripts: bool) -> None:
    """The page's policy allows the redirect back, and a further redirect to another origin."""
    with opened(browser, ask(), java_script_enabled=scripts) as page:
        page.get_by_role("button", name="Allow").click()
        answer = came_back(page, app)
    assert sorted(answer) == ["code", "iss", "state"]
    assert (answer["iss"], answer["state"]) == (issuer, "the state")


@pytest.mark.requirement("AS-13")
def test_deny_returns_access_denied(browser: Browser, issuer: str, ask: Ask, app: App) -> None:
    with opened(browser, ask()) as page:
        page.get_by_role("button", name="Deny").click()
        answer = came_back(page, app)
    assert answer.pop("error_description", "")
    assert answer == {"error": "access_denied", "iss": issuer, "state": "the state"}


@pytest.mark.requirement("AS-17")
def test_the_page_shows_the_request(browser: Browser, ask: Ask) -> None:
    """The client, where the answer goes, the resource, the scopes in words, and that this is for development."""
    with opened(browser, ask()) as page:
        assert page.get_by_role("heading", level=1).inner_text() == "Allow A notes app to act for you?"
        text = page.inner_text("body")
        for shown in ("A notes app", "127.0.0.1", RESOURCE, "Read notes", "mcp:read", "Write notes", "mcp:write"):
            assert shown in text
        assert "DEVELOPMENT ONLY" in text
        assert "a program on this computer" in text
        assert page.title() == "Allow A notes app?"
        assert page.evaluate("document.documentElement.lang") == "en"


def test_only_the_page_itself_is_loaded(browser: Browser, ask: Ask, issuer: str) -> None:
    with browsers.page_of(browser) as page:
        requested: list[str] = []
        page.on("request", lambda request: requested.append(request.url))
        page.goto(ask())
        assert [url for url in requested if not url.startswith("data:")] == [ask()]


def test_a_name_made_of_markup_is_text(browser: Browser, ask: Ask) -> None:
    with opened(browser, ask("hostile")) as page:
        assert page.locator("img").count() == 0
        heading = page.get_by_role("heading", level=1).inner_text()
        assert heading == f"Allow {HOSTILE[:-1]}\ufffd to act for you?"


def focused(page: Page) -> str:
    """What has the focus, by its role and name."""
    return str(
        page.evaluate(
            "() => { const e = document.activeElement;"
            " return e.type === 'radio' ? 'radio ' + e.value : e.tagName.toLowerCase() + ' ' + e.innerText.trim(); }"
        )
    )


def visible_focus(page: Page) -> bool:
    """Whether what has the focus, or its label, has an outline."""
    return bool(
        page.evaluate(
            "() => [document.activeElement, document.activeElement.closest('label')].some((e) => {"
            " const s = e && getComputedStyle(e);"
            " return s && s.outlineStyle !== 'none' && parseFloat(s.outlineWidth) >= 2; })"
        )
    )


def test_the_keyboard_alone(browser: Browser, ask: Ask, app: App) -> None:
    """Tab goes from who signs in to Deny to Allow; the focus can be seen; an arrow chooses another user."""
    with opened(browser, ask()) as page:
        order: list[str] = []
        for _ in range(3):
            page.keyboard.press("Tab")
            order.append(focused(page))
            assert visible_focus(page), order
        assert order == ["radio alice", "button Deny", "button Allow"]
        page.keyboard.press("Shift+Tab")
        page.keyboard.press("Shift+Tab")
        page.keyboard.press("ArrowDown")
        assert focused(page) == "radio bob"
        page.keyboard.press("Tab")
        page.keyboard.press("Tab")
        page.keyboard.press("Enter")
        assert "code" in came_back(page, app)


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        pytest.param(("Tab", "Enter"), "error", id="Enter in the form denies: nothing is allowed by accident"),
        pytest.param(("Tab", "Tab", "Enter"), "error", id="Enter on Deny", marks=pytest.mark.full),
        pytest.param(("Tab", "Tab", "Space"), "error", id="Space on Deny", marks=pytest.mark.full),
        pytest.param(("Tab", "Tab", "Tab", "Space"), "code", id="Space on Allow"),
    ],
)
def test_keys_press_the_focused_button(
    browser: Browser, ask: Ask, app: App, keys: tuple[str, ...], expected: str
) -> None:
    with opened(browser, ask()) as page:
        for key in keys:
            page.keyboard.press(key)
        assert expected in came_back(page, app)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("client_id", ["app", "unknown"], ids=["the consent page", "the error page"])
def test_text_has_enough_contrast(browser: Browser, ask: Ask, client_id: str, scheme: str) -> None:
    with browsers.page_of(browser, color_scheme=scheme) as page:
        page.goto(ask(client_id))
        contrasts = page.evaluate(browsers.CONTRASTS)
        background = page.evaluate(
            "() => getComputedStyle(document.documentElement).backgroundColor"
            " + getComputedStyle(document.body).backgroundColor"
        )
        assert len(contrasts) > 5
        assert [(text, round(contrast, 1)) for text, contrast in contrasts if contrast < ENOUGH] == []
        numbers = [float(n) for n in background.replace("rgba(0, 0, 0, 0)", "").strip("rgba()").split(",")[:3]]
        assert (sum(numbers) / 3 < 96) == (scheme == "dark")


@pytest.mark.parametrize("width", [320, 768, 1280])
@pytest.mark.parametrize("client_id", ["app", "long"])
def test_the_page_fits_the_screen(browser: Browser, ask: Ask, client_id: str, width: int) -> None:
    """No scrolling sideways, and buttons that a finger meets (WCAG 2.2, 1.4.10 and 2.5.8)."""
    with opened(browser, ask(client_id), viewport={"width": width, "height": 640}) as page:
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        for name in ("Deny", "Allow"):
            box = page.get_by_role("button", name=name).bounding_box()
            assert box is not None
            assert box["x"] >= 0
            assert box["x"] + box["width"] <= width
            assert box["height"] >= 40


@pytest.mark.requirement("AS-17")
def test_the_page_cannot_be_framed(browser: Browser, ask: Ask, app: App) -> None:
    """frame-ancestors 'none'. The browser shows an error in place of the page."""
    with browsers.page_of(browser) as page:
        with page.expect_event("framenavigated", lambda frame: frame != page.main_frame):
            page.goto(f"http://127.0.0.1:{app.port}/framing?{urlencode({'frame': ask()})}")
        inner = next(frame for frame in page.frames if frame != page.main_frame)
        inner.wait_for_load_state()
        assert inner.url.startswith("chrome-error://")
        assert inner.get_by_role("button", name="Allow").count() == 0


def test_a_form_counts_once(browser: Browser, ask: Ask, app: App, issuer: str) -> None:
    """The same form again, from the same browser, makes no second code."""
    with browsers.page_of(browser) as page:
        page.goto(ask())
        form: dict[str, str | float | bool] = {
            "csrf": page.locator("[name=csrf]").input_value(),
            "decision": "allow",
            "user": "alice",
        }
        page.get_by_role("button", name="Allow").click()
        came_back(page, app)
        again = page.request.post(f"{issuer}/consent", form=form, headers={"origin": issuer}, max_redirects=0)
        assert again.status == 400
        assert "location" not in again.headers


@pytest.mark.requirement("AS-17")
def test_a_page_of_another_site_cannot_answer(
    browser: Browser, ask: Ask, app: App, issuer: str, tmp_path: Path
) -> None:
    """A form of another site has no token of this page, and what it sends is refused."""
    with browsers.page_of(browser) as page:
        page.goto(ask())
        page.goto(f"http://localhost:{app.port}/evil")
        with page.expect_response(lambda response: response.request.method == "POST") as answered:
            page.evaluate(
                "(action) => { document.body.innerHTML = `<form method=post action='${action}'>"
                "<input name=decision value=allow><input name=csrf value=guess><input name=user value=alice></form>`;"
                " document.forms[0].submit(); }",
                f"{issuer}/consent",
            )
        assert answered.value.status in (400, 403)
