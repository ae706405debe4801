//! A bank under random work while everything it runs on is killed keeps its books.

use std::time::{Duration, Instant};
use std::{env, thread};

use finaiflow_e2e::{Tenant, unique};
use serde_json::json;

use crate::customer::Customer;
use crate::disturb::{self, API, OPERATOR, Surgeon};
use crate::random::Random;
use crate::{alone, books};

/// Of each of the two banks.
const CUSTOMERS: usize = 4;

/// `FINAIFLOW_CHAOS_SECONDS` (60) and `FINAIFLOW_CHAOS_SEED` (random; decides who does what in which order, and what
/// goes wrong when; not who of them is faster).
fn settings() -> (Duration, u64) {
    let seconds = env::var("FINAIFLOW_CHAOS_SECONDS").map_or(60, |text| text.parse().unwrap());
    let seed = env::var("FINAIFLOW_CHAOS_SEED").unwrap_or_else(|_| unique());
    (Duration::from_secs(seconds), u64::from_str_radix(&seed, 16).unwrap())
}

#[test]
fn everything_is_killed_and_no_money_is_lost_or_made() {
    let _alone = alone();
    let (duration, seed) = settings();
    eprintln!("chaos: {} s, FINAIFLOW_CHAOS_SEED={seed:08x}", duration.as_secs());
    let first_postgres = disturb::durable_postgres();
    let first_pods = [OPERATOR, API].map(disturb::containers);
    let surgeon = Surgeon::start();
    let banks = [Tenant::ready("chaos", &json!({})), Tenant::ready("chaos", &json!({}))];
    let mut customers = customers(&banks, seed);

    let end = Instant::now() + duration;
    thread::scope(|scope| {
        for customer in customers.iter_mut().flatten() {
            scope.spawn(move || {
                while Instant::now() < end {
                    customer.act();
                }
            });
        }
        scope.spawn(|| {
            disturb::until(end, &mut Random::new(seed, 0), &surgeon, &[&banks[0], &banks[1]]);
            disturb::recover();
        });
    });

    assert_ne!(disturb::durable_postgres(), first_postgres, "PostgreSQL was never killed");
    assert!([OPERATOR, API].map(disturb::containers) != first_pods, "no program was ever killed");
    for (bank, customers) in banks.iter().zip(&customers) {
        report(bank, customers);
        books::prove(bank, customers);
    }
    banks.iter().for_each(Tenant::delete);
}

/// Customers of both banks; each knows whom to pay and whose accounts are none of its business.
fn customers(banks: &[Tenant; 2], seed: u64) -> [Vec<Customer>; 2] {
    let mut stream = 0;
    let mut customers = banks.each_ref().map(|bank| {
        let mut customer = |number| {
            stream += 1;
            Customer::new(&bank.api(), &format!("{}-{number}", bank.name), Random::new(seed, stream))
        };
        (0..CUSTOMERS).map(&mut customer).collect::<Vec<_>>()
    });
    let accounts = customers.each_ref().map(|of_bank| of_bank.iter().map(|c| c.own.clone()).collect::<Vec<_>>());
    for (number, of_bank) in customers.iter_mut().enumerate() {
        let payees = accounts[number].concat();
        let theirs = accounts[1 - number].concat();
        for customer in of_bank {
            let is_own = |id: &String| customer.own.iter().any(|own| own.id == *id);
            let foreign = payees.iter().chain(&theirs).map(|account| account.id.clone());
            let foreign = foreign.filter(|id| !is_own(id)).collect();
            customer.meet(&payees, foreign, &banks[1 - number].name);
        }
    }
    customers
}

fn report(bank: &Tenant, customers: &[Customer]) {
    let writes = || customers.iter().flat_map(|customer| &customer.writes);
    let booked = writes().filter(|write| write.answer.status == 201).count();
    let slowest = writes().map(|write| write.ended - write.began).max().unwrap_or_default();
    let reads: usize = customers.iter().map(|customer| customer.reads.len()).sum();
    let mut troubles = std::collections::BTreeMap::<_, usize>::new();
    for (trouble, count) in customers.iter().flat_map(|customer| &customer.troubles) {
        *troubles.entry(trouble).or_default() += count;
    }
    eprintln!(
        "chaos: {}: {booked} writes acknowledged, {} refused, the slowest after {slowest:?}; {reads} reads; retried after {troubles:?}",
        bank.name,
        writes().count() - booked
    );
}
