//! Backups as real pods take them, in two regions and on a volume, and what comes back from them.

use finaiflow_e2e::{Api, BANKS, SYSTEM, Tenant, apply, eventually, get, kubectl, run, unique};
use serde_json::{Value, json};

const PASSWORD: &str = "correct horse battery staple";
/// The secret key of the escrow recipient in values-dev.yaml, known to everybody.
const ESCROW: &str = "AGE-SECRET-KEY-1QQQSYQCYQ5RQWZQFPG9SCRGWPUGPZYSNZS23V9CCRYDPK8QARC0SWRYDWG";

/// The S3 server of a region.
fn region(name: &str) {
    let manifest = include_str!("s3.yaml").replace("REGION", name);
    let output = run("kubectl", &["apply", "-f", "-"], &manifest);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let deployment = format!("deployment/s3-{name}");
    let _ = kubectl(&["-n", SYSTEM, "rollout", "status", &deployment, "--timeout=120s"]);
}

fn lose(name: &str) {
    let _ = kubectl(&["-n", SYSTEM, "scale", &format!("deployment/s3-{name}"), "--replicas=0"]);
}

/// Somebody who signs in again at another Tenant.
struct User {
    email: String,
    api: Api,
}

impl User {
    fn register(tenant: &Tenant) -> Self {
        let email = format!("{}@example.com", unique());
        let register = json!({"email": email, "password": PASSWORD, "name": "Ada"});
        let _ = tenant.api().post("/api/v1/auth/register", &register).expect(201);
        Self { api: signed_in(tenant, &email), email }
    }
}

/// Signs in at a Tenant that has just got its data.
fn signed_in(tenant: &Tenant, email: &str) -> Api {
    eventually(60, "the restored bank serves", || {
        let answer = tenant.api().post("/api/v1/auth/login", &json!({"email": email, "password": PASSWORD}));
        let token = answer.body["access_token"].as_str().map(|token| tenant.api().with_token(token));
        token.ok_or_else(|| answer.body.to_string())
    })
}

/// What was asked for at the one is answered at the other, as it was; for that it got the data key, too.
fn replayed(api: &Api, path: &str, body: &Value) -> Value {
    eventually(30, "an old request is answered again", || {
        let answer = api.write(path, "once", body);
        if answer.status == 201 { Ok(answer.body) } else { Err(answer.body.to_string()) }
    })
}

/// A Backup made by a test.
struct Backup {
    name: String,
}

impl Backup {
    fn of(tenant: &Tenant, spec: &Value) -> Self {
        let mut full = json!({"tenantRef": {"name": tenant.name}});
        full.as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
        let manifest = json!({
            "apiVersion": "finaiflow.io/v1alpha1", "kind": "Backup",
            "metadata": {"name": tenant.name, "namespace": BANKS}, "spec": full,
        });
        apply(&manifest).unwrap();
        Self { name: tenant.name.clone() }
    }

    fn status(&self) -> Value {
        get(BANKS, "backup", &self.name).unwrap()["status"].clone()
    }

    fn until<T>(&self, seconds: u64, what: &str, check: impl Fn(&Value) -> Option<T>) -> T {
        eventually(seconds, &format!("{}: {what}", self.name), || {
            let status = self.status();
            check(&status).ok_or_else(|| status.to_string())
        })
    }

    /// Starts a job as its CronJob starts it, and waits for its end; tells its name.
    fn start(&self, kind: &str) -> String {
        let claim = self.until(60, "a claim", |status| status["claimID"].as_str().map(str::to_owned));
        let (job, from) = (format!("{kind}-{}", unique()), format!("cronjob/backup-{claim}-{kind}"));
        eventually(60, &from, || {
            let created = run("kubectl", &["-n", SYSTEM, "create", "job", &job, "--from", &from], "");
            if created.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&created.stderr).into_owned()) }
        });
        eventually(300, &format!("job {job} ends"), || {
            let status = get(SYSTEM, "job", &job).ok_or("gone")?["status"].clone();
            let ended =
                |condition: &Value| ["Complete", "Failed"].contains(&condition["type"].as_str().unwrap_or_default());
            let conditions = status["conditions"].as_array().cloned().unwrap_or_default();
            if conditions.iter().any(ended) { Ok(()) } else { Err(status.to_string()) }
        });
        job
    }

    fn drop(self) {
        let _ = kubectl(&["-n", BANKS, "delete", "backup", &self.name, "--timeout=60s"]);
    }
}

fn condition<'a>(status: &'a Value, kind: &str) -> &'a Value {
    let found = status["conditions"].as_array().into_iter().flatten().find(|condition| condition["type"] == kind);
    found.unwrap_or(&Value::Null)
}

/// Makes a Restore and waits for its end; its status.
fn restore(name: &str, spec: &Value) -> Value {
    let manifest = json!({
        "apiVersion": "finaiflow.io/v1alpha1", "kind": "Restore",
        "metadata": {"name": name, "namespace": BANKS}, "spec": spec,
    });
    apply(&manifest).unwrap();
    eventually(300, &format!("restore {name} ends"), || {
        let status = get(BANKS, "restore", name).unwrap()["status"].clone();
        if status["completionTime"].is_string() { Ok(status) } else { Err(status.to_string()) }
    })
}

/// A Backup of the Tenant in two regions and on a volume, which hold the first full one.
fn in_two_regions(tenant: &Tenant) -> Backup {
    let backup = Backup::of(
        tenant,
        &json!({
            // The controller of Kubernetes starts these by itself.
            "incremental": {"schedule": "* * * * *"},
            "destinations": [{"name": "near", "className": "near"}, {"name": "far", "className": "far"},
                {"name": "local", "persistentVolumeClaim": {"sizeGiB": 1}}],
        }),
    );
    backup.until(180, "the first backup is everywhere", |status| {
        let places = status["destinations"].as_array()?;
        (places.len() == 3 && places.iter().all(|place| place["lastFull"].is_object())).then_some(())
    });
    backup
}

#[test]
fn a_bank_comes_back_from_the_region_that_is_left() {
    for name in ["near", "far"] {
        region(name);
    }
    let tenant = Tenant::ready("vault", &json!({"deletionPolicy": "BackupThenDelete"}));
    let user = User::register(&tenant);
    let account = user.api.open_account("USD");
    let (path, body) = (format!("/api/v1/accounts/{account}/deposit"), json!({"amount": 12_345, "currency": "USD"}));
    let deposited = user.api.write(&path, "once", &body).expect(201);

    let backup = in_two_regions(&tenant);
    user.api.deposit(&account, 655, "USD");
    backup.until(180, "an incremental one that its schedule started", |status| {
        let newest = status["destinations"].as_array()?.iter().find(|place| place["name"] == "far")?;
        (newest["lastIncremental"]["sequence"].as_i64()? >= 3).then_some(())
    });
    let _ = backup.start("verify");
    backup.until(60, "it is verified and in time", |status| {
        let is = |kind: &str| condition(status, kind)["status"] == "True";
        (is("RPOMet") && status["lastVerifiedTime"].is_string()).then_some(())
    });
    let _ = tenant.wait("Protected", "True");
    let table = kubectl(&["-n", BANKS, "get", "backup", &backup.name]);
    assert!(table.contains("LAST-VERIFIED") && table.contains("RPO"), "{table}");

    lose("near");
    user.api.deposit(&account, 1_000, "USD");
    backup.until(240, "what is lost is said, and the rest goes on", |status| {
        let place = |name: &str| status["destinations"].as_array()?.iter().find(|place| place["name"] == name).cloned();
        (place("near")?["fault"].is_string() && place("far")?["lastIncremental"]["sequence"].as_i64()? >= 4)
            .then_some(())
    });

    let clone = Tenant::ready("clone", &json!({}));
    let spec = json!({
        "source": {"backupRef": {"name": backup.name}}, "mode": "Clone", "target": {"latest": true},
        "targetTenantRef": {"name": clone.name},
    });
    let status = restore(&clone.name, &spec);
    assert_eq!(condition(&status, "Succeeded")["status"], "True", "{status}");
    assert_eq!(status["plan"]["destination"], "far");
    assert!(status["rtoSeconds"].as_i64().unwrap() >= 0, "{status}");
    let there = signed_in(&clone, &user.email);
    assert_eq!(there.balance(&account), 14_000);
    clone.assert_books();
    assert_eq!(replayed(&there, &path, &body), deposited);
    there.deposit(&account, 1, "USD");
    assert_eq!((there.balance(&account), user.api.balance(&account)), (14_001, 14_000));
    clone.verify_ledger();
    let _ = clone.wait("LedgerVerified", "True");

    clone.delete();

    let _ = kubectl(&["-n", SYSTEM, "scale", "deployment/s3-near", "--replicas=1"]);
    user.api.deposit(&account, 5, "USD");
    let _ = kubectl(&["-n", BANKS, "delete", "tenant", &tenant.name, "--timeout=240s"]);
    let again = Tenant::ready("again", &json!({}));
    let spec = json!({
        "source": {"backupRef": {"name": backup.name}}, "mode": "Clone", "target": {"latest": true},
        "targetTenantRef": {"name": again.name},
    });
    let status = restore(&again.name, &spec);
    assert_eq!(condition(&status, "Succeeded")["status"], "True", "{status}");
    assert_eq!(signed_in(&again, &user.email).balance(&account), 14_005);
    again.assert_books();
    backup.drop();
    again.delete();

    let lost = Tenant::ready("lost", &json!({}));
    from_the_bucket_alone(&lost, &status["plan"]);
    let there = signed_in(&lost, &user.email);
    assert_eq!((there.balance(&account), replayed(&there, &path, &body)), (14_005, deposited));
    lost.assert_books();
    lost.delete();
}

/// Restores what a plan names from one bucket, with nothing but the escrow key.
fn from_the_bucket_alone(target: &Tenant, plan: &Value) {
    let (claim, newest) = (plan["claimID"].as_str().unwrap(), plan["artifact"].as_str().unwrap());
    let identity = left_is_the_escrow_key(claim);
    let spec = json!({
        "source": {"className": "far", "manifest": format!("{claim}/{newest}")},
        "mode": "Clone", "target": {"latest": true}, "targetTenantRef": {"name": target.name},
    });
    let status = restore(&target.name, &spec);
    assert_eq!(condition(&status, "Succeeded")["status"], "True", "{status}");
    let _ = kubectl(&["-n", SYSTEM, "delete", "secret", &identity]);
}

/// Puts the escrow key in the place of the bank's own, with the public keys of those who signed its backups; the Secret's name.
fn left_is_the_escrow_key(claim: &str) -> String {
    let name = format!("backup-{claim}-identity");
    let signers = get(SYSTEM, "secret", &name).unwrap()["data"]["signers"].clone();
    let _ = kubectl(&["-n", SYSTEM, "delete", "secret", &name]);
    let secret = json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": {"name": name, "namespace": SYSTEM},
        "data": {"signers": signers}, "stringData": {"identity": ESCROW},
    });
    apply(&secret).unwrap();
    name
}
