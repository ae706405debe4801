//! What auditors ask of the chain, and the proof of an export with nothing else at hand.

use std::io::Write;
use std::process::{Command, Stdio};

use finaiflow_api::tenant::Role;
use finaiflow_api::verify::verify_ledger;
use serde_json::{Value, json};

use crate::harness::{Client, World};

const HEAD: &str = "/api/v1/audit-chain/head";
const VERIFY: &str = "/api/v1/audit-chain/verify";
const EXPORT: &str = "/api/v1/audit-chain/export";

/// A user of acme who works for the bank.
async fn staff<'w>(world: &'w World, name: &str, role: Role) -> Client<'w> {
    let client = world.user("acme", name).await;
    world.appoint(&[(&client, role)]).await;
    client
}

/// Ada has 900 of 1,000 and Bob 100: five journals with the settlement account.
async fn moved(world: &World) -> (String, String) {
    let (ada, bob) = (world.user("acme", "ada").await, world.user("acme", "bob").await);
    let (from, to) = (ada.funded(1_000, "USD").await, bob.open("USD").await);
    let body = json!({"from_account_id": from, "to_account_id": to, "amount": 100, "currency": "USD",
        "description": "Geheimes für Bob"});
    ada.write("/api/v1/transfers", "t", &body).await.expect(201);
    (from, to)
}

/// Exit code and standard output of the program an auditor runs.
fn proven(export: &str, anchors: &[&str]) -> (i32, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_finaiflow-api"));
    command
        .args(["audit-chain", "verify", "--export", "-"])
        .args(anchors.iter().flat_map(|anchor| ["--anchor", *anchor]));
    let piped = command.env_clear().stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = piped.spawn().unwrap();
    child.stdin.take().unwrap().write_all(export.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    (output.status.code().unwrap(), String::from_utf8(said).unwrap())
}

#[tokio::test]
async fn the_chain_is_for_staff() {
    let world = World::create().await;
    let ada = world.user("acme", "ada").await;
    for path in [HEAD, VERIFY, EXPORT] {
        ada.get(path).send().await.expect_problem(403, "forbidden");
    }
    for role in [Role::Auditor, Role::Teller] {
        let client = staff(&world, &format!("{role:?}").to_lowercase(), role).await;
        let empty = client.get(HEAD).send().await;
        assert_eq!((&empty.expect(200)["sequence"], &empty.body["anchored"]), (&json!(0), &Value::Null));
        assert_eq!(client.get(EXPORT).send().await.bytes, b"");
        client.get(VERIFY).send().await.expect_problem(404, "not-found");
        let range = client.get(&format!("{VERIFY}?from=1")).send().await;
        assert_eq!((&range.expect(200)["balanced"], &range.body["sequence"]), (&json!(true), &json!(0)));
    }
    world.close().await;
}

#[tokio::test]
async fn what_is_asked_for_wrongly_is_named() {
    let world = World::create().await;
    let auditor = staff(&world, "auditor", Role::Auditor).await;
    for (query, pointer) in [
        ("verify?from=0", "/from"),
        ("verify?from=x", "/from"),
        ("verify?from=5&to=4", "/to"),
        ("verify?from=1&to=10001", "/to"),
        ("export?limit=0", "/limit"),
        ("export?limit=10001", "/limit"),
        ("export?from=-1", "/from"),
        ("export?to=1", "/to"),
    ] {
        auditor.get(&format!("/api/v1/audit-chain/{query}")).send().await.expect_invalid(pointer);
    }
    world.close().await;
}

#[tokio::test]
async fn an_export_and_an_anchor_are_all_a_proof_needs() {
    let world = World::create().await;
    let auditor = staff(&world, "auditor", Role::Auditor).await;
    let _ = moved(&world).await;
    let head = auditor.get(HEAD).send().await.expect(200).clone();
    assert_eq!(head["sequence"], 5);
    let anchor = format!("{}:5:{}", head["epoch"], head["hash"].as_str().unwrap());
    let answer = auditor.get(EXPORT).send().await;
    assert_eq!(answer.headers["content-type"], "application/x-ndjson");
    let export = String::from_utf8(answer.bytes).unwrap();
    assert_eq!(export.lines().count(), 5);
    assert!(!export.contains("Geheim"), "no words of a customer: {export}");

    let (code, said) = proven(&export, &[&anchor]);
    assert_eq!((code, said.as_str()), (0, &*format!("5 journals hold, up to {anchor}; anchors passed: 1\n")));
    let part = auditor.get(&format!("{EXPORT}?from=4&limit=1")).send().await;
    let lines: Vec<_> = export.lines().collect();
    assert_eq!(String::from_utf8(part.bytes).unwrap(), format!("{}\n", lines[3]));

    let without = |skipped: usize| {
        let kept = lines.iter().enumerate().filter(|(number, _)| *number != skipped).map(|(_, line)| *line);
        kept.collect::<Vec<_>>().join("\n")
    };
    let swapped = [lines[0], lines[2], lines[1], lines[3], lines[4]].join("\n");
    for (tampered, first) in [
        (export.replace("\"amount\":100,", "\"amount\":101,"), "journal 5: chain: "),
        (without(2), "journal 3: journal-order: journals 3 to 3 are missing"),
        (without(4), "journal 5: anchor: "),
        (swapped, "journal 2: journal-order: "),
    ] {
        let (code, said) = proven(&tampered, &[&anchor]);
        assert!(code == 1 && said.starts_with(first), "{code}: {said}");
    }
    let other = anchor.replace(&anchor[anchor.len() - 4..], "0000");
    let (code, said) = proven(&export, &[&other]);
    assert!(code == 1 && said.starts_with("journal 5: anchor: journal 5 had hash"), "{code}: {said}");

    for (unreadable, why) in [
        (String::new(), "the export holds no journal"),
        (without(0), "the export begins with journal 2"),
        (export[..export.len() - 20].to_owned(), "line 5 is no journal"),
    ] {
        let (code, said) = proven(&unreadable, &[&anchor]);
        assert!(code == 2 && said.contains(why), "{code}: {said}");
    }
    world.close().await;
}

#[tokio::test]
async fn a_later_part_goes_on_from_an_anchor() {
    let world = World::create().await;
    let auditor = staff(&world, "auditor", Role::Auditor).await;
    let (account, _) = moved(&world).await;
    let head = auditor.get(HEAD).send().await.expect(200).clone();
    let anchor = format!("{}:5:{}", head["epoch"], head["hash"].as_str().unwrap());
    let ada = auditor.clone();
    let _ = (ada.funded(70, "USD").await, account);
    let rest = String::from_utf8(auditor.get(&format!("{EXPORT}?from=6")).send().await.bytes).unwrap();
    let (code, said) = proven(&rest, &[&anchor]);
    assert!(code == 0 && said.starts_with("2 journals hold, up to "), "{code}: {said}");
    let (code, _) = proven(&rest, &[]);
    assert_eq!(code, 2, "nothing to go on from");
    world.close().await;
}

#[tokio::test]
async fn the_last_verification_and_any_part_can_be_asked_for() {
    let world = World::create().await;
    let auditor = staff(&world, "auditor", Role::Auditor).await;
    let _ = moved(&world).await;
    verify_ledger(&world.db.maintenance_url).await.unwrap();
    let head = auditor.get(HEAD).send().await.expect(200).clone();
    assert_eq!((&head["anchored"]["sequence"], &head["anchored"]["hash"]), (&json!(5), &head["hash"]));
    let whole = auditor.get(VERIFY).send().await.expect(200).clone();
    assert_eq!((&whole["balanced"], &whole["sequence"], &whole["hash"]), (&json!(true), &json!(5), &head["hash"]));
    assert_eq!(whole["findings"], json!([]));

    world.execute("ALTER TABLE acme.journals DISABLE TRIGGER USER").await;
    world.execute("UPDATE acme.journals SET actor = gen_random_uuid() WHERE sequence = 4").await;
    for (range, sequence, balanced) in
        [("from=1&to=3", 3, true), ("from=3", 5, false), ("to=4", 4, false), ("from=5", 5, true)]
    {
        let answer = auditor.get(&format!("{VERIFY}?{range}")).send().await;
        let found = answer.expect(200);
        assert_eq!((&found["sequence"], &found["balanced"]), (&json!(sequence), &json!(balanced)), "{range}: {found}");
        let named = found["findings"].as_array().unwrap().iter().all(|finding| finding["sequence"] == 4);
        assert!(named, "{found}");
    }
    verify_ledger(&world.db.maintenance_url).await.unwrap();
    let whole = auditor.get(VERIFY).send().await.expect(200).clone();
    assert_eq!((&whole["balanced"], &whole["findings"][0]["check"]), (&json!(false), &json!("chain")));
    let head = auditor.get(HEAD).send().await.expect(200).clone();
    assert_eq!(head["anchored"]["sequence"], 5, "the newest verification without findings");
    world.close().await;
}
