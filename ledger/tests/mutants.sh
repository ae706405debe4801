#!/usr/bin/env bash
# Makes mistakes in a copy of the engine, one at a time, and wants the simulator to find each out. A mistake that no
# longer fits the code is an error too. The store's own checks are taken away one by one in schema/tests/it/attacks.rs
# and in the simulator's lies.
set -euo pipefail
ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
COPY=$ROOT/target/mutants
export CARGO_TARGET_DIR=$ROOT/target FINAIFLOW_SIM_SEEDS=${FINAIFLOW_SIM_SEEDS:-500} RUST_BACKTRACE=0

simulate() { (cd "$COPY" && cargo test -q --locked --workspace --test sim -- every_seed) >"$COPY.log" 2>&1; }

mutant() { # MISTAKE FILE SED
  local file=$COPY/ledger/src/$2
  cp "$ROOT/ledger/src/$2" "$file.before"
  sed -i -e "$3" "$file"
  ! cmp -s "$file" "$file.before" || { echo "error: nothing to change for: $1" >&2; exit 1; }
  ! simulate || { echo "error: not found out: $1" >&2; exit 1; }
  grep -q 'replay with FINAIFLOW_SIM_SEED' "$COPY.log" || { tail -n 30 "$COPY.log" >&2; echo "error: no verdict on: $1" >&2; exit 1; }
  printf '%s\n    %s\n' "$1" "$(grep -m1 -E '^ +left: ' "$COPY.log" | cut -c1-160)"
  mv "$file.before" "$file"
  touch "$file"
}

rm -rf "$COPY"
mkdir -p "$COPY"
# As new as can be: cargo goes by time.
tar -C "$ROOT" --exclude=target -cf - Cargo.toml Cargo.lock rust-toolchain.toml \
  crds schema ledger telemetry backup operator api-server e2e | tar -C "$COPY" -xmf - --no-same-owner
simulate || { tail -n 30 "$COPY.log" >&2; echo 'error: the engine fails as it is' >&2; exit 1; }

mutant 'a batch is answered although its commit failed' engine/committer.rs \
  's/session\.write(before, commands, &decision)\.await?;/let _ = session.write(before, commands, \&decision).await;/'
mutant 'what is kept is trusted in another epoch' engine/committer.rs \
  's/\.filter(|kept| kept\.head == head)/.filter(|kept| kept.head.sequence == head.sequence).map(|kept| State { head, ..kept })/'
mutant 'a retry does not look its keys up' engine/committer.rs \
  's/self\.decide(&mut session, state, commands, true)/self.decide(\&mut session, state, commands, false)/'
mutant 'a refusal that is not remembered hides an earlier answer' engine/committer.rs \
  's/if !look_up \&\& decision\.answers\.iter()\.any(is_unwritten)/if false/'
mutant 'a key answers whatever the request was' rules/mod.rs \
  's/return if earlier\.fingerprint == command\.fingerprint/return if true/'
mutant 'a sequence is used again' rules/mod.rs \
  's/head\.sequence = head\.sequence\.next()\.ok_or(Rejection::LimitExceeded)?;/if head.sequence == Sequence::default() { head.sequence = head.sequence.next().ok_or(Rejection::LimitExceeded)?; }/'
mutant 'an account keeps its version' rules/mod.rs \
  's/self\.version\.checked_add(1)/self.version.checked_add(0)/'
mutant 'the minimum balance is not looked at' rules/mod.rs \
  's/posted\.saturating_sub(held) < limits\.minimum_balance/false/'
mutant 'a day that is over still counts' rules/mod.rs \
  's/if self\.on == date { self\.day } else { 0 }/self.day/'
mutant 'a refused atomic bulk leaves its accounts changed' rules/movements.rs \
  's/self\.state\.accounts\.extend(self\.undo\.take()\.into_iter()\.flatten()\.rev());/self.undo = None;/'
mutant 'a journal is reversed twice' rules/movements.rs 's/if reversed {/if false {/'
