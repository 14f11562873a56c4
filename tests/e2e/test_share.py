"""Pushing from the page to a stand-in hub: with this machine's account, and on a Space with the visitor's."""

import base64
import hashlib
import json
import time

import pytest
from itsdangerous import TimestampSigner

from tests.e2e.explorer import SLOW, Explorer
from tests.e2e.server import running_app
from tests.writable_hub import WritableHub, serve

SECRET = "the-secret-of-the-space"
SPACE = {
    "SYSTEM": "spaces", "SPACE_ID": "host/space", "SPACE_HOST": "host-space.example", "OAUTH_CLIENT_ID": "client",
    "OAUTH_CLIENT_SECRET": SECRET, "OAUTH_SCOPES": "openid profile contribute-repos",
    "OPENID_PROVIDER_URL": "http://127.0.0.1:9",
}  # fmt: skip


@pytest.fixture
def hub():
    stand_in = WritableHub({"hf_host": "host", "hf_visitor": "visitor"})
    with serve(stand_in):
        yield stand_in


@pytest.fixture
def opened(browser, hub, tmp_path):
    """Opens the page of an app of its own, which knows the stand-in and the host's token."""
    pages, apps = [], []

    def open_page(settings: dict[str, str]) -> Explorer:
        known = {"HF_ENDPOINT": hub.address, "HF_TOKEN": "hf_host", "HF_HUB_OFFLINE": "0", "HF_HUB_DISABLE_XET": "1"}
        app = running_app(tmp_path / "app.log", known | settings)
        url = app.__enter__()
        apps.append(app)
        pages.append(Explorer(browser, url))
        return pages[-1]

    yield open_page
    for page in pages:
        page.close()
    for app in apps:
        app.__exit__(None, None, None)


def push(explorer: Explorer, name: str) -> None:
    explorer.bring("push-repository")
    explorer.page.fill("#push-repository :is(input, textarea)", name)
    explorer.click("push-button")


@pytest.mark.long
def test_from_a_machine_of_ones_own(opened, hub):
    explorer = opened({})
    page = explorer.page
    explorer.bring("push-repository")
    assert page.locator("#sign-in").count() == 0
    push(explorer, "small")
    explorer.says("Nothing has been cut yet")
    explorer.prune(1)
    push(explorer, "")
    explorer.says("No repository was named")
    push(explorer, "not a name")
    explorer.says("cannot name a repository")
    push(explorer, "small")
    assert "(private)" in explorer.says(f"The model is at {hub.address}/host/small")
    files = hub.repositories["host/small"].files
    assert hub.repositories["host/small"].private
    assert {"model.safetensors", "config.json", "tokenizer.json", "plan.json", "README.md"} <= files.keys()
    assert b"Proved: a fresh process" in files["README.md"]


@pytest.mark.exhaustive
def test_what_is_there_is_replaced_only_if_wanted_and_a_push_can_be_stopped(opened, hub):
    explorer = opened({})
    page = explorer.page
    explorer.prune(1)
    push(explorer, "small")
    explorer.says("The model is at")
    commits = len(hub.repositories["host/small"].commits)
    push(explorer, "host/small")
    assert "“Replace what is there”" in explorer.says("host/small exists and holds")
    assert len(hub.repositories["host/small"].commits) == commits
    page.get_by_label("Replace what is there").check()
    explorer.click("push-button")
    explorer.says("The model is at")
    assert len(hub.repositories["host/small"].commits) == commits + 1

    hub.fails["commit"] = None
    push(explorer, "other")
    explorer.wait_until(
        "document.querySelector('#progress').innerText.includes('bytes') && "
        "document.querySelector('#progress progress').value === 1"
    )
    page.click("#stop-button")
    explorer.says("Nothing was pushed")
    assert "model.safetensors" not in hub.repositories["host/other"].files
    assert not explorer.errors and not explorer.foreign_requests


@pytest.mark.long
def test_on_a_space_the_visitor_pushes_and_never_the_host(opened, hub):
    explorer = opened(SPACE)
    page = explorer.page
    explorer.bring("sign-in")
    assert page.locator("#sign-in").inner_text().strip() == "Sign in with Hugging Face"
    explorer.prune(1)
    push(explorer, "small")
    explorer.says("Nobody is signed in")
    assert hub.asked == []

    # what gradio's sign-in leaves behind once the provider has said who somebody is
    account = {"preferred_username": "visitor", "name": "V", "profile": "", "picture": ""}
    signed_in = {
        "oauth_info": {
            "access_token": "hf_visitor", "scope": "openid contribute-repos", "expires_at": time.time() + 900,
            "userinfo": account,
        }
    }  # fmt: skip
    key = hashlib.sha256((SECRET + "-v4").encode()).hexdigest()
    cookie = TimestampSigner(key).sign(base64.b64encode(json.dumps(signed_in).encode())).decode()
    page.context.add_cookies([{"name": "session", "value": cookie, "url": explorer.url}])
    page.reload()
    page.wait_for_selector("#channels-plot .heatmaplayer image", timeout=SLOW)
    explorer.bring("sign-in")
    explorer.reads("sign-in", "Logout (visitor)")
    push(explorer, "small")
    explorer.says(f"The model is at {hub.address}/visitor/small")
    assert {token for _, token in hub.asked} == {"hf_visitor"}
