//! Whether what clients saw could have happened in one order, in which every operation takes effect at one moment
//! between its call and its answer.
//!
//! The versions of an account say in which order it was written, so nothing has to be guessed: who wrote the version
//! that somebody read came before (wr), who wrote the next one after (rw), writers follow each other (ww), and what
//! was answered before something else was asked comes before it. A history is sound if these have no cycle.

use std::collections::BTreeMap;

/// What one client did at once.
#[derive(Debug, Clone, Default)]
pub struct Operation {
    pub name: String,
    /// When it was asked and, if it ever was, answered; none where nobody knows.
    pub asked: Option<u64>,
    pub answered: Option<u64>,
    /// Accounts and their versions.
    pub reads: Vec<(i64, i64)>,
    pub writes: Vec<(i64, i64)>,
}

/// The names along a cycle, if there is one, or what is wrong with the versions themselves.
pub fn check(operations: &[Operation]) -> Result<(), String> {
    let mut writers = BTreeMap::new();
    for (node, operation) in operations.iter().enumerate() {
        for write in &operation.writes {
            if let Some(other) = writers.insert(*write, node) {
                let names = [&operation.name, &operations[other].name];
                return Err(format!("version {write:?} was written by {names:?}"));
            }
        }
    }
    let mut edges = real_time(operations);
    let mut edge = |from: usize, to: usize| {
        if from != to {
            edges[from].push(to);
        }
    };
    for (&(account, version), &writer) in &writers {
        if let Some(&next) = writers.get(&(account, version + 1)) {
            edge(writer, next);
        }
    }
    for (node, operation) in operations.iter().enumerate() {
        for &(account, version) in &operation.reads {
            match writers.get(&(account, version)) {
                Some(&writer) => edge(writer, node),
                None if version == 0 => {}
                None => {
                    return Err(format!("{} read version {version} of {account}, which nobody wrote", operation.name));
                }
            }
            if let Some(&next) = writers.get(&(account, version + 1)) {
                edge(node, next);
            }
        }
    }
    match cycle(&edges) {
        None => Ok(()),
        Some(nodes) => {
            let names: Vec<_> = nodes
                .iter()
                .map(|node| operations.get(*node).map_or("(time passes)", |operation| &operation.name))
                .collect();
            Err(format!("in no order: {names:?}"))
        }
    }
}

/// Edges from each operation to all that were asked after it was answered, through nodes that stand for the moments of
/// answers, so that their number does not grow with the square.
fn real_time(operations: &[Operation]) -> Vec<Vec<usize>> {
    let mut answers: Vec<_> =
        operations.iter().enumerate().filter_map(|(node, operation)| Some((operation.answered?, node))).collect();
    answers.sort_unstable();
    let first = operations.len();
    let mut edges = vec![Vec::new(); first + answers.len()];
    for (moment, (_, node)) in answers.iter().enumerate() {
        edges[*node].push(first + moment);
        if moment > 0 {
            edges[first + moment - 1].push(first + moment);
        }
    }
    for (node, operation) in operations.iter().enumerate() {
        let Some(asked) = operation.asked else { continue };
        let before = answers.partition_point(|(answered, _)| *answered < asked);
        if before > 0 {
            edges[first + before - 1].push(node);
        }
    }
    edges
}

/// The nodes of a cycle.
fn cycle(edges: &[Vec<usize>]) -> Option<Vec<usize>> {
    let mut incoming = vec![0_usize; edges.len()];
    edges.iter().flatten().for_each(|to| incoming[*to] += 1);
    let mut free: Vec<_> = (0..edges.len()).filter(|node| incoming[*node] == 0).collect();
    let mut ordered = 0;
    while let Some(node) = free.pop() {
        ordered += 1;
        for to in &edges[node] {
            incoming[*to] -= 1;
            if incoming[*to] == 0 {
                free.push(*to);
            }
        }
    }
    if ordered == edges.len() {
        return None;
    }
    // What is left has a way back; each step to a node that is left too must come around.
    let mut before = vec![usize::MAX; edges.len()];
    for (node, to) in edges.iter().enumerate().filter(|(node, _)| incoming[*node] > 0) {
        to.iter().filter(|to| incoming[**to] > 0).for_each(|to| before[*to] = node);
    }
    let mut node = (0..edges.len()).find(|node| incoming[*node] > 0)?;
    for _ in 0..edges.len() {
        node = before[node];
    }
    let (end, mut around) = (node, vec![node]);
    while before[node] != end {
        node = before[node];
        around.push(node);
    }
    around.reverse();
    Some(around)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn operation(name: &str, asked: u64, answered: u64) -> Operation {
        Operation { name: name.to_owned(), asked: Some(asked), answered: Some(answered), ..Operation::default() }
    }

    fn read(name: &str, asked: u64, answered: u64, reads: &[(i64, i64)]) -> Operation {
        Operation { reads: reads.to_vec(), ..operation(name, asked, answered) }
    }

    fn write(name: &str, asked: u64, answered: u64, writes: &[(i64, i64)]) -> Operation {
        Operation { writes: writes.to_vec(), ..operation(name, asked, answered) }
    }

    #[test]
    fn what_overlaps_may_be_seen_either_way() {
        let write = write("transfer", 10, 20, &[(1, 1), (2, 1)]);
        for version in [0, 1] {
            assert_eq!(check(&[write.clone(), read("read", 15, 30, &[(1, version)])]), Ok(()));
        }
        let unanswered = Operation { answered: None, ..write };
        let reads = [read("not yet", 90, 95, &[(1, 0)]), read("now", 96, 97, &[(1, 1)])];
        assert_eq!(check(&[&[unanswered], &reads[..]].concat()), Ok(()));
    }

    #[test]
    fn anomalies_are_cycles() {
        let write = write("transfer", 10, 20, &[(1, 1), (2, 1)]);
        let histories = [
            ("stale", vec![write.clone(), read("r", 21, 22, &[(1, 0)])]),
            ("future", vec![read("r", 1, 9, &[(1, 1)]), write.clone()]),
            ("backwards", vec![write.clone(), read("r", 11, 12, &[(1, 1)]), read("s", 13, 14, &[(1, 0)])]),
            ("torn", vec![write.clone(), read("r", 11, 19, &[(1, 1), (2, 0)])]),
            ("skewed", vec![write.clone(), read("r", 11, 12, &[(1, 1)]), read("s", 13, 14, &[(2, 0)])]),
            ("lost", vec![write.clone(), self::write("w", 11, 12, &[(1, 1)])]),
            ("out of order", vec![self::write("w", 30, 40, &[(3, 1)]), self::write("x", 41, 50, &[(3, 0)])]),
            ("from nowhere", vec![read("r", 1, 2, &[(1, 7)])]),
        ];
        for (name, history) in histories {
            assert!(check(&history).is_err(), "{name}");
        }
    }
}
