//! One conversation out of the ledger: its requests, each under the one whose answer it goes on from.

use std::collections::HashMap;

use rusqlite::Connection;
use tollgate_base::Amount;
use tollgate_observe::conversation;

use crate::failure::Failure;
use crate::query::{ReadError, Reader, moment};
use crate::schema::{self, OLD_ROWS};

/// Requests of one conversation that are read.
const MOST: i64 = 10_000;

/// One request of a conversation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Turn {
    /// How deep it stands: one deeper where a conversation branches.
    pub depth: usize,
    /// Whether another request follows at this depth: one that goes on from the same answer, or the only one that goes
    /// on from this one.
    pub has_next_sibling: bool,
    /// Arrival, RFC 3339.
    pub time: String,
    /// `x-request-id`.
    pub request_id: String,
    /// Consumer.
    pub consumer: Option<String>,
    /// Model that answered, else the one asked for.
    pub model: Option<String>,
    /// Vendor.
    pub vendor: Option<String>,
    /// Tokens in.
    pub input: i64,
    /// Tokens out.
    pub output: i64,
    /// Milliseconds to the end.
    pub duration_ms: i64,
    /// What it cost.
    pub cost: Option<Amount>,
    /// Its currency.
    pub currency: Option<String>,
    /// Status.
    pub status: i64,
    /// How it ended.
    pub termination: String,
    /// Upstream attempts.
    pub attempts: i64,
    /// Tools that the answer before it called.
    pub tools: Vec<String>,
    parent: Option<String>,
}

impl Reader {
    /// The requests of a conversation in the order of a tree's lines, each consumer's behind each other; none if there is
    /// no such conversation.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn conversation(&self, id: &str) -> Result<Vec<Turn>, ReadError> {
        self.turns(id)
            .map(of_each_consumer)
            .map_err(|failure| self.unreadable(failure))
    }

    fn turns(&self, id: &str) -> Result<Vec<Turn>, Failure> {
        let transaction = self.connection.unchecked_transaction()?;
        let these = rows_of(&transaction, id)?;
        let mut statement = transaction.prepare(&format!(
            "SELECT time, request_id, consumer, ifnull(model, model_requested), vendor, input, output, duration_ms, cost, \
             currency, status, ifnull(termination, ''), attempts, ifnull(tools, ''), parent \
             FROM requests WHERE {these} ORDER BY time, id LIMIT ?2",
        ))?;
        let rows = statement.query_map((id, MOST), |row| {
            let tools: String = row.get(13)?;
            Ok(Turn {
                depth: 0,
                has_next_sibling: false,
                time: moment(row.get(0)?),
                request_id: row.get(1)?,
                consumer: row.get(2)?,
                model: row.get(3)?,
                vendor: row.get(4)?,
                input: row.get(5)?,
                output: row.get(6)?,
                duration_ms: row.get(7)?,
                cost: row
                    .get::<_, Option<i64>>(8)?
                    .map(|parts| Amount(parts.unsigned_abs())),
                currency: row.get(9)?,
                status: row.get(10)?,
                termination: row.get(11)?,
                attempts: row.get(12)?,
                tools: tools
                    .split(',')
                    .filter(|tool| !tool.is_empty())
                    .map(str::to_owned)
                    .collect(),
                parent: row.get(14)?,
            })
        })?;
        Ok(rows.collect::<Result<_, _>>()?)
    }
}

/// What the rows of a conversation (`?1`) fulfil. Those that joined it have an index. The one that opened it was written
/// just after the id was made: it stands in the span in which the next request arrived, or shortly before.
fn rows_of(connection: &Connection, id: &str) -> Result<String, rusqlite::Error> {
    if !schema::has_table(connection, "spans")? {
        return Ok("conversation = ?1".to_owned());
    }
    let mut rows = "SELECT id FROM entries WHERE conversation = ?1".to_owned();
    if let Some(made) = conversation::made(id) {
        let after = "SELECT min(first) FROM spans WHERE latest >= ?1";
        let these = format!(
            "SELECT first, last FROM spans WHERE first <= ifnull(({after}), {}) ORDER BY first DESC LIMIT 3",
            i64::MAX
        );
        let sql = format!("SELECT ifnull(min(first), 1), ifnull(max(last), 0) FROM ({these})");
        let (first, last): (i64, i64) =
            connection.query_row(&sql, [made], |row| Ok((row.get(0)?, row.get(1)?)))?;
        rows +=
            &format!(" UNION ALL SELECT id FROM entries WHERE opened = ?1 AND id BETWEEN {first} AND {last}");
    }
    if schema::has_table(connection, OLD_ROWS)? {
        rows += &format!(" UNION ALL SELECT id FROM {OLD_ROWS} WHERE conversation = ?1");
    }
    Ok(format!("id IN ({rows})"))
}

/// Ids that clients choose are nobody's own: each consumer's requests are a tree of their own, in the order in which the
/// consumers came.
fn of_each_consumer(turns: Vec<Turn>) -> Vec<Turn> {
    let mut places: HashMap<Option<String>, usize> = HashMap::new();
    let mut trees: Vec<Vec<Turn>> = Vec::new();
    for turn in turns {
        let place = *places.entry(turn.consumer.clone()).or_insert(trees.len());
        match trees.get_mut(place) {
            Some(tree) => tree.push(turn),
            None => trees.push(vec![turn]),
        }
    }
    trees.into_iter().flat_map(in_order).collect()
}

/// Puts every request under its parent. A parent counts only when it came before: what clients say of request ids cannot
/// make a circle.
fn in_order(turns: Vec<Turn>) -> Vec<Turn> {
    let mut last: HashMap<&str, usize> = HashMap::new();
    let mut children: Vec<Vec<usize>> = vec![Vec::new(); turns.len()];
    let mut roots = Vec::new();
    for (index, turn) in turns.iter().enumerate() {
        let parent = turn
            .parent
            .as_deref()
            .and_then(|parent| last.get(parent).copied());
        match parent.and_then(|parent| children.get_mut(parent)) {
            Some(siblings) => siblings.push(index),
            None => roots.push(index),
        }
        last.insert(&turn.request_id, index);
    }
    let mut ordered = Vec::with_capacity(turns.len());
    let mut waiting = Vec::new();
    push(&mut waiting, &roots, 0);
    while let Some(Waiting {
        index,
        depth,
        branches,
        more,
    }) = waiting.pop()
    {
        let after = children.get(index).map_or(&[][..], Vec::as_slice);
        let goes_straight_on = after.len() == 1 && !branches;
        if let Some(turn) = turns.get(index) {
            ordered.push(Turn {
                depth,
                has_next_sibling: more || goes_straight_on,
                ..turn.clone()
            });
        }
        push(
            &mut waiting,
            after,
            if goes_straight_on { depth } else { depth + 1 },
        );
    }
    ordered
}

/// A turn whose line is still to come.
struct Waiting {
    index: usize,
    depth: usize,
    /// It is one of several that go on from the same answer.
    branches: bool,
    /// Another of those follows.
    more: bool,
}

fn push(waiting: &mut Vec<Waiting>, siblings: &[usize], depth: usize) {
    for (place, index) in siblings.iter().enumerate().rev() {
        waiting.push(Waiting {
            index: *index,
            depth,
            branches: siblings.len() > 1,
            more: place + 1 < siblings.len(),
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_goes_straight_on_is_one_column_and_branches_are_indented() {
        let turn = |id: &str, parent: Option<&str>| Turn {
            depth: 0,
            has_next_sibling: false,
            time: String::new(),
            request_id: id.to_owned(),
            consumer: None,
            model: None,
            vendor: None,
            input: 0,
            output: 0,
            duration_ms: 0,
            cost: None,
            currency: None,
            status: 200,
            termination: String::new(),
            attempts: 1,
            tools: Vec::new(),
            parent: parent.map(str::to_owned),
        };
        let turns = vec![
            turn("1", None),
            turn("2", Some("1")),
            turn("3a", Some("2")),
            turn("3b", Some("2")),
            turn("4a", Some("3a")),
            turn("5a", Some("4a")),
            // Whoever names himself, or somebody to come, has no parent.
            turn("x", Some("x")),
            turn("y", Some("z")),
            turn("z", Some("y")),
        ];
        let lines: Vec<_> = in_order(turns)
            .into_iter()
            .map(|turn| (turn.request_id, turn.depth, turn.has_next_sibling))
            .collect();
        let lines: Vec<_> = lines
            .iter()
            .map(|line| (line.0.as_str(), line.1, line.2))
            .collect();
        assert_eq!(
            lines,
            [
                ("1", 0, true),
                ("2", 1, false),
                ("3a", 2, true),
                ("4a", 3, true),
                ("5a", 3, false),
                ("3b", 2, false),
                ("x", 0, true),
                ("y", 0, false),
                ("z", 1, false),
            ]
        );
    }
}
