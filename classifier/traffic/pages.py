"""What the paths and user agents of somebody's log are taken for, and the paths that attackers try without seeing them."""

from __future__ import annotations

import re
from typing import Final

from classifier.traffic.flow import Act, Disguise

_ASSET = re.compile(r"\.(css|js|mjs|png|jpe?g|gif|ico|svg|webp|avif|woff2?|ttf|eot|map|mp4|webm)(\?|$)", re.I)
_LOGIN = re.compile(r"log-?in|sign-?in|/auth|/session|xmlrpc|/token|/oauth", re.I)
_SIGNUP = re.compile(r"regist|sign-?up|create-?account|/join\b|/users?$", re.I)
_INFERENCE = re.compile(r"/(chat/completions|completions|embeddings|responses|messages|generate)\b")
BROWSER = re.compile(r"^Mozilla/[45]\.0 \((?!compatible[;,])")
DECLARED = re.compile(r"bot\b|crawl|spider|slurp|https?://|feed|[\w.]@[\w-]+\.\w", re.I)
"""A user agent that says what it is, or where its owner can be reached."""
LOGIN_PROBES: Final = ("/wp-login.php", "/xmlrpc.php", "/administrator/index.php", "/admin/login", "/user/login")
SIGNUP_PROBES: Final = ("/wp-login.php?action=register", "/register", "/user/register", "/signup", "/index.php?do=reg")
PROBES: Final = tuple(
    "/.env /.git/config /phpmyadmin/index.php /admin/ /backup.zip /backup.sql /wp-content/plugins/ /config.php.bak "
    "/old/ /test.php /cgi-bin/test.cgi /server-status /api/v1/users /w00tw00t.at.isc.sans.dfind /wp-login.php "
    "/administrator/ /db.sql /robots.txt.bak /shell.php /manager/html /HNAP1 /setup.php /data/admin/config.txt "
    "/.aws/credentials /.git/HEAD /vendor/phpunit/phpunit/src/Util/PHP/eval-stdin.php /solr/admin/info/system "
    "/index.php?option=com_users&task=registration /xmlrpc.php /fckeditor/editor/filemanager/upload/test.html "
    "/actuator/health /api/jsonws/invoke /login.action /user/register /uploads/shell.php /up.php /1.php".split()
)


def act_of(path: str) -> Act:
    """Return what a request for a path is taken for: a page where nothing else is known."""
    if _INFERENCE.search(path):
        return Act.CHAT
    if _ASSET.search(path):
        return Act.ASSET
    if _SIGNUP.search(path):
        return Act.SIGNUP
    return Act.LOGIN if _LOGIN.search(path) else Act.DOCS


def class_of(agent: str | None) -> Disguise:
    """Return whether a user agent is a browser's; what says that it is a bot is none."""
    if agent is None or not BROWSER.search(agent):
        return "tool"
    return "tool" if DECLARED.search(agent) else "browser"
