//! What is in a closed state directory.

use std::ops::{Bound, ControlFlow};
use std::path::Path;

use headwater::prelude::*;
use headwater_changelog::layout::Timestamped;
use headwater_changelog::{Directory, Reader, StoreId, rocks};
use headwater_integration_tests::StoreDump;

use super::{STORE, say};

/// Prints every store of every task, tasks in ascending order, entries in the order of their keys.
pub(crate) fn dump(state_dir: &Path, application: &str) -> Result<()> {
    let directory = Directory::open(state_dir, application)?;
    let shared = rocks::Shared::new(rocks::Settings::default())?;
    for task in directory.tasks()? {
        let database = rocks::open(directory.task(task)?, &[STORE], &shared)?;
        let mut dump = StoreDump {
            task: task.to_string(),
            store: STORE.to_owned(),
            offset: database.offset(StoreId(0))?,
            entries: Vec::new(),
        };
        let mut wrong = None;
        database.scan(StoreId(0), Bound::Unbounded, Bound::Unbounded, &mut |key, local| match Timestamped::decode(
            local,
        ) {
            Ok((timestamp, value)) => {
                dump.entries.push((key.to_vec(), timestamp, value.to_vec()));
                ControlFlow::Continue(())
            }
            Err(error) => {
                wrong = Some(error);
                ControlFlow::Break(())
            }
        })?;
        if let Some(error) = wrong {
            return Err(error.into());
        }
        say(&dump.line());
    }
    Ok(())
}
