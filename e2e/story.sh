#!/usr/bin/env bash
# story.sh [TENANT]: a new customer's first minutes at a bank, by curl. Every answer is checked; the first that is not
# as documented ends the walk with exit code 1. Needs FINAIFLOW_URL and KUBECONFIG (make env); TENANT is acme by default.
set -euo pipefail
TENANT=${1:-acme}
: "${FINAIFLOW_URL:?not set; run: eval \"\$(make -s env)\"}"
EMAIL=ada-$(openssl rand -hex 4)@example.com
PASSWORD=$(openssl rand -base64 18)
TOKEN=''

say() { printf '\n# %s\n' "$*"; }
key() { cat /proc/sys/kernel/random/uuid; }
# call STATUS METHOD PATH [BODY [KEY]]: prints the call as one would type it and its answer, which it leaves in $answer.
call() {
  local want=$1 method=$2 path=$3 body=${4:-} key=${5:-} status shown secret
  local args=(-sS --max-time 30 -X "$method" "$FINAIFLOW_URL/api/v1$path" -H "X-Tenant-ID: $TENANT")
  shown="curl -X $method \$FINAIFLOW_URL/api/v1$path -H 'X-Tenant-ID: $TENANT'"
  [ -z "$TOKEN" ] || { args+=(-H "Authorization: Bearer $TOKEN") && shown+=" -H \"Authorization: Bearer \$TOKEN\""; }
  [ -z "$key" ] || { args+=(-H "Idempotency-Key: $key") && shown+=" -H 'Idempotency-Key: $key'"; }
  [ -z "$body" ] || { args+=(--json "$body") && shown+=" --json '$body'"; }
  for secret in "$PASSWORD" "$TOKEN"; do [ -z "$secret" ] || shown=${shown//"$secret"/…}; done
  printf '$ %s\n' "$shown"
  answer=$(curl "${args[@]}" -w '\n%{http_code}')
  status=${answer##*$'\n'} answer=${answer%$'\n'*}
  # A token is as good as a password: its beginning is enough to see that it is one.
  printf '%s %s\n' "$status" "$(jq -c 'with_entries(if .key | endswith("_token") then .value |= .[:8] + "…" else . end)' <<<"$answer" 2>/dev/null || echo "$answer")"
  [ "$status" = "$want" ] || { echo "story: expected status $want" >&2; exit 1; }
}
field() { jq -re "$1" <<<"$answer"; }
# expect JQ VALUE: what the last answer says must be this.
expect() {
  local is
  is=$(jq -c "$1" <<<"$answer")
  [ "$is" = "$2" ] || { echo "story: expected $1 to be $2, found $is" >&2; exit 1; }
}

say "Register with the bank $TENANT, and log in"
call 201 POST /auth/register "{\"email\":\"$EMAIL\",\"password\":\"$PASSWORD\",\"name\":\"Ada Lovelace\"}"
call 200 POST /auth/login "{\"email\":\"$EMAIL\",\"password\":\"$PASSWORD\"}"
TOKEN=$(field .access_token)

say "Open two accounts"
call 201 POST /accounts '{"type":"checking","currency":"EUR","name":"Everyday"}' "$(key)"
checking=$(field .id)
call 201 POST /accounts '{"type":"savings","currency":"EUR","name":"Rainy days"}' "$(key)"
savings=$(field .id)

say "Deposit 100.00 (amounts are in cents); sent again with its key, as after a lost answer, it is the same deposit"
deposit=$(key)
call 201 POST "/accounts/$checking/deposit" '{"amount":10000,"currency":"EUR","description":"first deposit"}' "$deposit"
first=$answer
call 201 POST "/accounts/$checking/deposit" '{"amount":10000,"currency":"EUR","description":"first deposit"}' "$deposit"
expect . "$(jq -c . <<<"$first")"

say "Move 25.00 to the savings; more than there is cannot be moved"
call 201 POST /transfers "{\"from_account_id\":\"$checking\",\"to_account_id\":\"$savings\",\"amount\":2500,\"currency\":\"EUR\"}" "$(key)"
call 422 POST /transfers "{\"from_account_id\":\"$checking\",\"to_account_id\":\"$savings\",\"amount\":7501,\"currency\":\"EUR\"}" "$(key)"
expect .type '"https://finaiflow.io/problems/insufficient-funds"'

say "Read what is there"
call 200 GET "/accounts/$checking/balance"
expect .balance 7500
call 200 GET "/accounts/$savings/balance"
expect .balance 2500
call 200 GET "/accounts/$checking/transactions"
expect '[.data[].amount] | sort' '[-2500,10000]'

say "The bank, as the platform team sees it"
echo "\$ kubectl -n banks get tenant $TENANT"
kubectl -n banks get tenant "$TENANT"
