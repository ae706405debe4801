//! Two banks in one database, two replicas with one connection to each, and requests that alternate between them.

use finaiflow_schema::names::Login;
use serde_json::json;

use crate::fleet::{Book, Client, Fleet, Request, User, get, post};
use crate::tenants_bank::Bank;

const WORKERS: usize = 16;
const REQUESTS: usize = 10_000;

/// A customer of one bank. The other bank has one of the same name.
#[derive(Clone)]
struct Customer {
    user: User,
    account: String,
    /// Of another customer of the same bank.
    payee: String,
}

impl Customer {
    /// By header or by host.
    fn address(&self, request: Request, by_host: bool) -> Request {
        let request = self.user.sign(request);
        if by_host { request.at(&self.user.tenant) } else { request.to(&self.user.tenant) }
    }
}

/// One customer of each bank, who take turns on the same connections.
struct Worker {
    client: Client,
    customers: [Customer; 2],
    books: [Book; 2],
}

impl Worker {
    async fn run(mut self, number: usize) -> [Book; 2] {
        for turn in 0..REQUESTS / WORKERS {
            self.request(number, turn).await;
        }
        self.books
    }

    async fn request(&mut self, number: usize, turn: usize) {
        let bank = (number + turn) % 2;
        let (customer, other) = (self.customers[bank].clone(), self.customers[1 - bank].clone());
        let (account, by_host) = (&customer.account, (turn / 2).is_multiple_of(2));
        let reference = format!("{}-{number}-{turn}", customer.user.tenant);
        let movement = |amount: i64| json!({"amount": amount, "currency": "USD", "reference": reference});
        let mut transfer = movement(1);
        transfer["from_account_id"] = json!(account);
        transfer["to_account_id"] = json!(customer.payee);
        let path = |of: &str, what: &str| format!("/api/v1/accounts/{of}{what}");
        let kind = turn / 4 % 8;
        let (request, moved) = match kind {
            0 => (post(&path(account, "/deposit"), &movement(100)), Some(100)),
            1 => (get("/api/v1/accounts"), None),
            2 => (post("/api/v1/transfers", &transfer), Some(-1)),
            3 => (get(&path(account, "/balance")), None),
            4 => (post(&path(account, "/withdraw"), &movement(7)), Some(-7)),
            5 => (get(&path(account, "/transactions?limit=5")), None),
            6 => (get(&path(&other.account, "/balance")), None),
            _ => (get("/api/v1/auth/profile"), None),
        };
        let request = customer.address(request.key(&reference), by_host);
        let answer = self.client.insist(&request).await;
        assert!(!answer.text.contains(&other.user.tenant), "a foreign row: {}", answer.text);
        let book = &mut self.books[bank];
        if let Some(amount) = moved {
            assert_eq!(answer.expect(201)["reference"], reference);
            book.acknowledge(&reference, account, amount);
            if kind == 2 {
                book.post(&customer.payee, 1);
            }
            return;
        }
        let body = answer.expect(if kind == 6 { 404 } else { 200 });
        let tenant = &customer.user.tenant;
        let all = |what: &str, fits: &dyn Fn(&str) -> bool| {
            let rows = body["data"].as_array().unwrap();
            assert!(rows.iter().all(|row| row[what].as_str().is_none_or(fits)), "{body}");
        };
        match kind {
            1 => all("name", &|name| name == format!("of {tenant}")),
            3 => assert_eq!(body["balance"].as_i64().unwrap(), book.balance(account)),
            5 => all("reference", &|reference| reference.starts_with(tenant)),
            6 => {}
            _ => assert!(body["name"].as_str().unwrap().ends_with(tenant), "{body}"),
        }
    }
}

/// Customers of a bank: a few users, an account for each worker and one for all to pay to.
async fn customers(client: &mut Client, bank: &Bank) -> Vec<Customer> {
    let mut users = Vec::new();
    for number in 0..4 {
        users.push(client.sign_up(&bank.name, &format!("user{number}")).await);
    }
    let payee = client.open_account(&users[0]).await;
    let mut customers = Vec::new();
    for number in 0..WORKERS {
        let user = users[number % users.len()].clone();
        let account = client.open_account(&user).await;
        customers.push(Customer { user, account, payee: payee.clone() });
    }
    customers
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tenants_that_share_everything_never_see_each_others_rows() {
    let acme = Bank::create().await;
    let globex = acme.create_neighbour().await;
    for bank in [&acme, &globex] {
        bank.patch_spec(json!({"limits": {"connections": 3}})).await;
        bank.complete().await;
    }
    let fleet = Fleet::of(&acme);
    let replicas = tokio::join!(fleet.add(), fleet.add());
    let mut client = Client::new(&fleet.service);
    let (of_acme, of_globex) = (customers(&mut client, &acme).await, customers(&mut client, &globex).await);
    // A session is good for its own bank only.
    let stray = of_acme[0].user.sign(get("/api/v1/accounts")).to(&globex.name);
    client.insist(&stray).await.expect(401);
    let torn = of_acme[0].user.sign(get("/api/v1/accounts")).to(&globex.name).at(&acme.name);
    client.insist(&torn).await.expect(400);

    let workers = of_acme.into_iter().zip(of_globex).enumerate().map(|(number, (acme, globex))| {
        let (client, books) = (Client::new(&fleet.service), [Book::default(), Book::default()]);
        tokio::spawn(Worker { client, customers: [acme, globex], books }.run(number))
    });
    let workers: Vec<_> = workers.collect();
    let mut books = [Book::default(), Book::default()];
    for worker in workers {
        for (book, done) in books.iter_mut().zip(worker.await.expect("each answer is the tenant's own")) {
            book.merge(done);
        }
    }
    for (bank, book) in [&acme, &globex].into_iter().zip(&books) {
        assert!(bank.connections(Login::AppA).await <= 2, "one connection for each replica");
        bank.assert_booked(book).await;
    }
    drop((replicas, fleet));
    globex.drop().await;
    acme.drop().await;
}
