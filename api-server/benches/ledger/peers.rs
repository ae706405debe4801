//! The programs that ours is measured beside, on the same PostgreSQL.

use std::io::{BufRead, BufReader, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

const PGBENCH: &str = "/usr/lib/postgresql/15/bin/pgbench";
/// So many branches and a hundred thousand times as many accounts: connections seldom wait for each other's branch.
const SCALE: &str = "16";
/// Where `make bench-ledger` puts the program of e2e/benches/cala.
const CALA: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../target/cala/release/finaiflow-bench-cala");

/// Fills pgbench's tables.
pub fn fill_pgbench(database: &str) {
    run(Command::new(PGBENCH).args(["--initialize", "--quiet", "--scale", SCALE, database]));
}

/// Transactions and seconds.
pub fn pgbench(database: &str, script: &str, protocol: &str, connections: usize, seconds: u64) -> (f64, f64) {
    let mut command = Command::new(PGBENCH);
    command.args(["--no-vacuum", "--jobs", "2", "--builtin", script, "--protocol", protocol, database]);
    let output = run(command.args(["--client", &connections.to_string(), "--time", &seconds.to_string()]));
    let number = |before: &str| {
        let rest = output.split(before).nth(1).unwrap_or_else(|| panic!("{output}"));
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        rest[..end].parse::<f64>().unwrap()
    };
    let transactions = number("transactions actually processed: ");
    (transactions, transactions / number("tps = "))
}

/// The program, if it was built.
pub fn cala() -> Option<PathBuf> {
    Some(PathBuf::from(CALA)).filter(|path| path.exists())
}

/// Opens cala-ledger's accounts.
pub fn open_cala(program: &Path, database: &str, accounts: usize) {
    run(Command::new(program).args([database, "open", &accounts.to_string()]));
    run(Command::new("/usr/lib/postgresql/15/bin/vacuumdb").args(["--quiet", "--analyze", database]));
}

/// cala-ledger, warmed up.
pub struct Cala {
    child: Child,
    start: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Cala {
    pub fn warm(program: &Path, database: &str, numbers: [usize; 4]) -> Self {
        let mut command = Command::new(program);
        command.args([database, "post"]).args(numbers.map(|number| number.to_string()));
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let (start, output) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        let mut cala = Self { child, start, output: BufReader::new(output) };
        let mut ready = String::new();
        cala.output.read_line(&mut ready).unwrap();
        assert_eq!(ready, "ready\n", "cala-ledger");
        cala
    }

    /// Transfers, seconds, and the milliseconds that 50 %, 99 % and 99.9 % of the calls took at most.
    pub fn measure(mut self) -> (f64, f64, [f64; 3]) {
        self.start.write_all(b"\n").unwrap();
        let mut output = String::new();
        self.output.read_to_string(&mut output).unwrap();
        assert!(self.child.wait().unwrap().success(), "cala-ledger");
        let numbers: Vec<f64> = output.split_whitespace().map(|number| number.parse().unwrap()).collect();
        (numbers[0], numbers[1], [2, 3, 4].map(|place| numbers[place] / 1e3))
    }
}

fn run(command: &mut Command) -> String {
    let output = command.stderr(Stdio::piped()).output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}
