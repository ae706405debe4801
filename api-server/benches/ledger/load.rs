//! Transfers over HTTP, from one thread.

use std::cell::Cell;
use std::io::Write as _;
use std::time::{Duration, Instant};

use futures::future::join_all;
use tokio::time::sleep;

use crate::books::{CURRENCY, key};
use crate::house::House;
use crate::kit::wire::Connection;
use crate::traffic::{Dice, Traffic};

/// Transfers in one request of the bulk endpoint.
pub const BULK: u32 = 50;
/// The server says a second; what a client loses by that is no part of what is measured.
const RETRY_AFTER: Duration = Duration::from_millis(50);

/// What clients saw.
#[derive(Default)]
pub struct Answers {
    pub transfers: u32,
    /// Microseconds, in order.
    pub latencies: Vec<u32>,
    /// Answers that said to try again, which the clients did with the same key.
    pub refused: u32,
}

/// Clients who keep their connections open.
pub struct Load<'a> {
    houses: Vec<Door<'a>>,
    clients: Vec<Connection>,
    traffic: Traffic,
    /// In one request.
    transfers: u32,
    refused: Cell<u32>,
}

/// What a client needs to know of a tenant.
struct Door<'a> {
    house: &'a House,
    accounts: Vec<String>,
    /// By user.
    tokens: Vec<String>,
}

impl<'a> Load<'a> {
    /// `connections` to the API server at `port`, for the transfers of `houses` in turn. What houses have more accounts of
    /// than others is not used.
    pub async fn open(port: u16, houses: &'a [House], traffic: Traffic, connections: usize) -> Self {
        let accounts = houses.iter().map(|house| house.books.accounts.len()).min().unwrap();
        let door = |house: &'a House| {
            let ids = house.books.accounts[..accounts].iter();
            Door { house, accounts: ids.map(ToString::to_string).collect(), tokens: house.tokens() }
        };
        let clients = join_all((0..connections).map(|_| Connection::open(port))).await;
        Self { houses: houses.iter().map(door).collect(), clients, traffic, transfers: 1, refused: Cell::default() }
    }

    /// With many transfers in a request; nothing where there is no such endpoint.
    pub async fn in_bulk(mut self) -> Option<Self> {
        self.transfers = BULK;
        let mut first = Client::new(&mut self.clients[0], 0, self.traffic, BULK, &self.refused);
        first.send(&self.houses[0]).await.then_some(self)
    }

    /// Every connection sends the next request when the last is answered.
    pub async fn closed(&mut self, time: Duration) -> Answers {
        let (began, count, traffic, size) = (Instant::now(), self.clients.len(), self.traffic, self.transfers);
        let (houses, refused) = (&self.houses, &self.refused);
        let clients = self.clients.iter_mut().enumerate().map(|(number, connection)| async move {
            let (mut client, mut latencies) =
                (Client::new(connection, number, traffic, size, refused), Vec::with_capacity(1 << 12));
            for turn in 0.. {
                let asked = Instant::now();
                if asked - began >= time {
                    break;
                }
                assert!(client.send(&houses[(number + turn * count) % houses.len()]).await);
                latencies.push(asked.elapsed().as_micros() as u32);
            }
            latencies
        });
        Answers::of(join_all(clients).await.concat(), size, refused.take())
    }

    /// Requests are due at fixed times whatever becomes of those before, and are counted from when they are due.
    pub async fn open_loop(&mut self, per_second: f64, time: Duration) -> Answers {
        let (began, next, traffic, alone) = (Instant::now(), Cell::new(0_u32), self.traffic, self.clients.len() == 1);
        let (houses, next, refused) = (&self.houses, &next, &self.refused);
        let clients = self.clients.iter_mut().enumerate().map(|(number, connection)| async move {
            let (mut client, mut latencies) =
                (Client::new(connection, number, traffic, 1, refused), Vec::with_capacity(1 << 12));
            loop {
                let turn = next.replace(next.get() + 1);
                let due = Duration::from_secs_f64(f64::from(turn) / per_second);
                if due >= time {
                    return latencies;
                }
                let early = due.saturating_sub(began.elapsed());
                // The runtime's timers are as coarse as a millisecond, which matters where nothing waits for others.
                if alone {
                    std::thread::sleep(early);
                } else {
                    sleep(early).await;
                }
                assert!(client.send(&houses[turn as usize % houses.len()]).await);
                latencies.push(began.elapsed().saturating_sub(due).as_micros() as u32);
            }
        });
        Answers::of(join_all(clients).await.concat(), 1, refused.take())
    }
}

impl Answers {
    fn of(mut latencies: Vec<u32>, transfers: u32, refused: u32) -> Self {
        latencies.sort_unstable();
        Self { transfers: latencies.len() as u32 * transfers, latencies, refused }
    }
}

/// A connection and what its requests are made of.
struct Client<'a> {
    connection: &'a mut Connection,
    dice: Dice,
    traffic: Traffic,
    transfers: u32,
    body: Vec<u8>,
    request: Vec<u8>,
    refused: &'a Cell<u32>,
}

impl<'a> Client<'a> {
    fn new(
        connection: &'a mut Connection,
        number: usize,
        traffic: Traffic,
        transfers: u32,
        refused: &'a Cell<u32>,
    ) -> Self {
        let (body, request) = (Vec::new(), Vec::new());
        Self { connection, dice: Dice::new(number), traffic, transfers, body, request, refused }
    }

    /// Whether there is such an endpoint.
    async fn send(&mut self, door: &Door<'_>) -> bool {
        let (count, accounts, users) = (self.transfers, door.accounts.len(), door.tokens.len());
        let first = door.house.books.take_numbers(count);
        let (payer, receiver) = self.dice.pair(self.traffic, accounts);
        self.body.clear();
        let path = if count == 1 {
            self.write(door, payer, receiver, first);
            "/api/v1/transfers"
        } else {
            self.body.extend_from_slice(br#"{"mode":"independent","transfers":["#);
            for number in first..first + count {
                // All from accounts of one user.
                let (from, to) = self.dice.pair(self.traffic, accounts);
                let from = Some(from / users * users + payer % users).filter(|from| *from < accounts).unwrap_or(payer);
                self.write(door, from, if to == from { (to + 1) % accounts } else { to }, number);
                self.body.push(b',');
            }
            self.body.pop();
            self.body.extend_from_slice(b"]}");
            "/api/v1/transfers/bulk"
        };
        let mut status = self.post(door, path, payer, first).await;
        while status == 503 {
            self.refused.set(self.refused.get() + 1);
            sleep(RETRY_AFTER).await;
            status = self.post(door, path, payer, first).await;
        }
        let offered = count == 1 || status != 404 && status != 405;
        assert!(!offered || (200..300).contains(&status), "answered with {status}");
        if !offered {
            door.house.books.return_numbers(count);
        }
        offered
    }

    fn write(&mut self, door: &Door<'_>, from: usize, to: usize, number: u32) {
        let (from, to) = (&door.accounts[from], &door.accounts[to]);
        write!(
            self.body,
            r#"{{"from_account_id":"{from}","to_account_id":"{to}","amount":1,"currency":"{CURRENCY}","reference":"{}"}}"#,
            key(number)
        )
        .unwrap();
    }

    /// In the name of the owner of the account `from`.
    async fn post(&mut self, door: &Door<'_>, path: &str, from: usize, number: u32) -> u16 {
        let (tenant, token) = (&door.house.bank.name, &door.tokens[from % door.tokens.len()]);
        self.request.clear();
        write!(
            self.request,
            "POST {path} HTTP/1.1\r\nhost: localhost\r\nx-tenant-id: {tenant}\r\nauthorization: Bearer {token}\r\n\
             content-type: application/json\r\nidempotency-key: {}\r\ncontent-length: {}\r\n\r\n",
            key(number),
            self.body.len()
        )
        .unwrap();
        self.request.extend_from_slice(&self.body);
        self.connection.exchange(&self.request).await.0
    }
}
