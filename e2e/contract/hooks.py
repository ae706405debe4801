"""What an answer must be beyond what the OpenAPI document says, and what a request needs to get as far as the ledger."""

import atexit
import collections
import itertools
import json
import os
import re

import requests
import schemathesis

ACCOUNTS = os.environ["ACCOUNTS"].split()
# What there is besides: each of it can be settled once, so that every operation meets some that it fits.
STOCK = {kind: os.environ[kind.upper()].split() for kind in ("spares", "frozen", "transfers", "pending", "holds", "journals")}
# Which of it an operation takes, by the last segment of its path; what is not here takes an account.
TAKES = {
    "freeze": "spares",
    "close": "spares",
    "unfreeze": "frozen",
    "complete": "pending",
    "cancel": "pending",
    "capture": "holds",
    "void": "holds",
}
LOGIN = {"email": os.environ["EMAIL"], "password": os.environ["PASSWORD"]}

# Refusals that say nothing about the request's form: they depend on what the bank holds.
BUSINESS = {
    "insufficient-funds",
    "currency-mismatch",
    "same-account",
    "limit-exceeded",
    "idempotency-key-reused",
    "unbalanced",
    "exceeds-hold",
}

numbers = itertools.count()
answers = collections.defaultdict(collections.Counter)
refresh_tokens = []


@schemathesis.check
def problems_are_documented(ctx, response, case):
    """An error is an RFC 9457 problem, of a kind that the document names for the operation and the status."""
    if response.status_code < 400:
        return
    media_type = response.headers["content-type"]
    assert media_type == ["application/problem+json"], f"an error of type {media_type}"
    problem = response.json()
    assert problem["status"] == response.status_code, f"the body says {problem['status']}"
    base, _, code = problem["type"].rpartition("/")
    assert base == "https://finaiflow.io/problems", base
    if response.status_code == 405:  # a method without an operation has nothing to document it
        assert code == "method-not-allowed", code
        return
    documented = case.operation.definition.raw["responses"][str(response.status_code)]
    assert code in documented["content"]["application/problem+json"]["examples"], f"{code} is not documented"


@schemathesis.check
def fitting_requests_are_taken(ctx, response, case):
    """What fits the document is refused only for what the bank holds."""
    if response.status_code not in (400, 422) or not case.meta.generation.mode.is_positive:
        return
    problem = response.json()
    # What holds for a transfer holds for each of a bulk.
    faults = {re.sub(r"^/transfers/\d+", "", error["pointer"]) for error in problem.get("errors", [])}
    excused = set()
    # Which currencies accounts may have is the tenant's choice, which the document cannot know.
    excused.add("/currency")
    # That only a pending transfer expires is a rule between two fields.
    excused.add("/expires_at")
    # How far the end of a range may be from its start, too.
    if case.operation.path.endswith("/audit-chain/verify"):
        excused.add("/to")
    # To JSON Schema 1.0 is an integer; to a bank it is somebody's floating point.
    excused |= {re.sub(r"^/transfers/\d+", "", pointer) for pointer in floats(case.body)}
    business = problem["type"].rpartition("/")[2] in BUSINESS
    assert business or (faults and faults <= excused), f"it fits the document and is answered {problem}"


def floats(value, pointer=""):
    """Pointers to the numbers that are written with a decimal point."""
    if isinstance(value, float):
        return {pointer}
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return set().union(*(floats(item, f"{pointer}/{name}") for name, item in items))


def subject(path, number):
    """The id of something that the operation fits."""
    action = path[-1]
    if action in TAKES or action == "reverse":
        stock = STOCK[TAKES.get(action, path[3])]
        return stock.pop() if len(stock) > 1 else stock[0]
    if path[3] in STOCK:
        return STOCK[path[3]][0]
    # What is changed is an account that nothing else needs.
    return STOCK["spares"][0] if action in ("limits", "{id}") else ACCOUNTS[number % len(ACCOUNTS)]


@schemathesis.hook
def before_call(context, case, kwargs):
    """Seven of eight fitting requests name what exists: otherwise hardly one would be more than not found."""
    number = next(numbers)
    if case.meta is None or not case.meta.generation.mode.is_positive or number % 8 == 0:
        return
    known = {"currency": "USD", "account_id": ACCOUNTS[0]}
    known |= {"from_account_id": ACCOUNTS[0], "to_account_id": ACCOUNTS[1]}
    if case.path.endswith("/journals"):
        known["legs"] = [{"account_id": ACCOUNTS[0], "amount": -1}, {"account_id": ACCOUNTS[1], "amount": 1}]
    if case.path.endswith("/transfers/bulk"):
        known["transfers"] = [
            {"from_account_id": ACCOUNTS[0], "to_account_id": ACCOUNTS[1], "amount": 1, "currency": "USD"}
        ]
    if case.path.endswith(("/complete", "/capture")):
        known["amount"] = 1
    if case.path.endswith("/register"):
        known["email"] = f"{number}+{LOGIN['email']}"
    if case.path.endswith("/login"):
        known |= LOGIN
    if refresh_tokens:
        known["refresh_token"] = refresh_tokens[-1]
    if isinstance(case.body, dict):
        case.body = case.body | {name: known[name] for name in known.keys() & case.body.keys()}
    if "id" in case.path_parameters:
        case.path_parameters = {"id": subject(case.path.split("/"), number)}
    if "Idempotency-Key" in case.headers:
        case.headers["Idempotency-Key"] = f"{LOGIN['email']}-{number}"


@schemathesis.hook
def after_call(context, case, response):
    answers[f"{case.method} {case.path}"][response.status_code] += 1
    if (case.method, response.status_code) == ("POST", 200) and case.path.endswith(("/login", "/refresh")):
        refresh_tokens.append(response.json()["refresh_token"])
    if response.status_code == 204 and case.path.endswith("/logout"):
        SignedIn.token = None


@atexit.register
def report():
    with open("answers.json", "w") as file:
        json.dump(answers, file)


class SignedIn:
    """The user's access token, a new one after each logout."""

    token = None

    def get(self, case, ctx):
        if SignedIn.token is None:
            url = case.operation.schema.get_base_url().rstrip("/") + "/api/v1/auth/login"
            answer = requests.post(url, json=LOGIN, headers={"X-Tenant-ID": os.environ["TENANT"]}, timeout=60)
            answer.raise_for_status()
            SignedIn.token = answer.json()["access_token"]
        return SignedIn.token

    def set(self, case, token, ctx):
        case.headers["Authorization"] = f"Bearer {token}"


if os.environ["CALLER"] == "user":
    schemathesis.auth(refresh_interval=None)(SignedIn)
