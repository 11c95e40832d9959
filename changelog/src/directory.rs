//! The state directory of one application on one machine.

use std::fmt;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{ErrorKind, Read, Write};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use uuid::Uuid;

use crate::{Error, Result, name};

const LOCK_FILE: &str = ".lock";
const INSTANCE_FILE: &str = "instance";

/// A locked state directory: `<root>/<application id>/`, with one directory per task.
///
/// While it lives, no other process and no other instance in this process can open the same directory.
#[derive(Debug)]
pub struct Directory {
    path: PathBuf,
    instance: Uuid,
    /// Holds the lock until it is dropped.
    _lock: File,
}

/// A task: a part of the topology, and the partition of its inputs. Its directory is `<subtopology>_<partition>`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TaskId {
    /// The sub-topology's number.
    pub subtopology: u32,
    /// The partition of its inputs.
    pub partition: u32,
}

impl Directory {
    /// Creates or opens the directory of `application` under `root`, and locks it.
    pub fn open(root: impl AsRef<Path>, application: &str) -> Result<Self> {
        name::check("application id", application)?;
        let path = root.as_ref().join(application);
        fs::create_dir_all(&path).map_err(Error::io("create", &path))?;
        let lock = lock(&path.join(LOCK_FILE))?;
        let instance = instance(&path)?;
        Ok(Self { path, instance, _lock: lock })
    }

    /// Where the directory lies.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The identity of the instance that owns this directory: made once, and the same at every start.
    #[must_use]
    pub fn instance(&self) -> Uuid {
        self.instance
    }

    /// The directory of a task, created if it is not there.
    pub fn task(&self, task: TaskId) -> Result<PathBuf> {
        let path = self.path.join(task.to_string());
        fs::create_dir_all(&path).map_err(Error::io("create", &path))?;
        Ok(path)
    }

    /// The tasks that have a directory, in ascending order.
    pub fn tasks(&self) -> Result<Vec<TaskId>> {
        let mut tasks = Vec::new();
        for entry in fs::read_dir(&self.path).map_err(Error::io("list", &self.path))? {
            let name = entry.map_err(Error::io("list", &self.path))?.file_name();
            tasks.extend(name.to_str().and_then(|name| name.parse::<TaskId>().ok()));
        }
        tasks.sort_unstable();
        Ok(tasks)
    }

    /// Deletes a task's directory, if there is one. Its stores must be closed; they can be rebuilt from their logs.
    pub fn remove(&self, task: TaskId) -> Result<()> {
        let path = self.path.join(task.to_string());
        match fs::remove_dir_all(&path) {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(Error::io("delete", &path)(error)),
            _ => Ok(()),
        }
    }

    /// Deletes every task's directory and answers which they were. Keeps the instance's identity.
    pub fn clean_up(&self) -> Result<Vec<TaskId>> {
        let tasks = self.tasks()?;
        tasks.iter().try_for_each(|&task| self.remove(task))?;
        Ok(tasks)
    }
}

fn lock(path: &Path) -> Result<File> {
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(path)
        .map_err(Error::io("open", path))?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let mut holder = String::new();
            // Only for the message: a lock file that cannot be read is no failure of its own.
            let holder = file.read_to_string(&mut holder).ok().and_then(|_| holder.trim().parse().ok());
            return Err(Error::Locked { path: path.to_owned(), holder });
        }
        Err(TryLockError::Error(source)) => return Err(Error::io("lock", path)(source)),
    }
    file.set_len(0).map_err(Error::io("write", path))?;
    writeln!(file, "{}", std::process::id()).map_err(Error::io("write", path))?;
    Ok(file)
}

fn instance(directory: &Path) -> Result<Uuid> {
    let path = directory.join(INSTANCE_FILE);
    match fs::read_to_string(&path) {
        Ok(text) => text.trim().parse().map_err(|_| Error::Corrupt {
            subject: path.display().to_string(),
            reason: format!("it holds {text:?} instead of a UUID; delete the file to start as a new instance"),
        }),
        Err(error) if error.kind() == ErrorKind::NotFound => {
            let instance = Uuid::new_v4();
            write_durably(&path, &format!("{instance}\n"))?;
            Ok(instance)
        }
        Err(error) => Err(Error::io("read", &path)(error)),
    }
}

/// Writes beside the target and renames, so that a crash leaves the whole file or none.
fn write_durably(path: &Path, text: &str) -> Result<()> {
    let draft = path.with_extension("new");
    let mut file = File::create(&draft).map_err(Error::io("create", &draft))?;
    file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).map_err(Error::io("write", &draft))?;
    fs::rename(&draft, path).map_err(Error::io("create", path))?;
    let Some(directory) = path.parent() else { return Ok(()) };
    File::open(directory).and_then(|file| file.sync_all()).map_err(Error::io("sync", directory))
}

impl fmt::Display for TaskId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}_{}", self.subtopology, self.partition)
    }
}

impl FromStr for TaskId {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let parse = || {
            let (subtopology, partition) = text.split_once('_')?;
            let task = Self { subtopology: subtopology.parse().ok()?, partition: partition.parse().ok()? };
            // `parse` also takes "+1" and "01", which are names of no task.
            (task.to_string() == text).then_some(task)
        };
        let reason = "it is not <subtopology>_<partition>";
        parse().ok_or_else(|| Error::Name { what: "task", name: text.to_owned(), reason })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TASK: TaskId = TaskId { subtopology: 1, partition: 12 };

    #[test]
    fn a_second_instance_is_refused_with_path_and_holder() {
        let root = tempfile::tempdir().unwrap();
        let first = Directory::open(root.path(), "app").unwrap();
        let error = Directory::open(root.path(), "app").unwrap_err();
        assert!(matches!(&error, Error::Locked { holder, .. } if *holder == Some(std::process::id())), "{error}");
        assert!(error.to_string().contains(&root.path().join("app").join(".lock").display().to_string()), "{error}");
        Directory::open(root.path(), "other").unwrap();
        drop(first);
        Directory::open(root.path(), "app").unwrap();
    }

    #[test]
    fn the_instance_survives_a_restart_and_a_clean_up() {
        let root = tempfile::tempdir().unwrap();
        let directory = Directory::open(root.path(), "app").unwrap();
        let instance = directory.instance();
        directory.task(TASK).unwrap();
        assert_eq!(directory.clean_up().unwrap(), [TASK]);
        drop(directory);
        assert_eq!(Directory::open(root.path(), "app").unwrap().instance(), instance);
    }

    #[test]
    fn a_damaged_instance_file_is_explained() {
        let root = tempfile::tempdir().unwrap();
        drop(Directory::open(root.path(), "app").unwrap());
        fs::write(root.path().join("app/instance"), "half").unwrap();
        let error = Directory::open(root.path(), "app").unwrap_err();
        assert!(matches!(error, Error::Corrupt { .. }) && error.to_string().contains("delete the file"), "{error}");
    }

    #[test]
    fn tasks_are_listed_and_removed() {
        let root = tempfile::tempdir().unwrap();
        let directory = Directory::open(root.path(), "app").unwrap();
        let path = directory.task(TASK).unwrap();
        assert_eq!(path, root.path().join("app/1_12"));
        fs::write(path.join("file"), "x").unwrap();
        fs::create_dir(root.path().join("app/not-a-task")).unwrap();
        directory.task(TaskId { subtopology: 0, partition: 3 }).unwrap();
        assert_eq!(directory.tasks().unwrap(), [TaskId { subtopology: 0, partition: 3 }, TASK]);
        directory.remove(TASK).unwrap();
        directory.remove(TASK).unwrap();
        assert_eq!(directory.clean_up().unwrap(), [TaskId { subtopology: 0, partition: 3 }]);
        assert!(root.path().join("app/not-a-task").exists());
    }

    #[test]
    fn task_names() {
        assert_eq!("1_12".parse::<TaskId>().unwrap(), TASK);
        for name in ["", "1", "1_", "_1", "+1_2", "01_2", "1_2_3", "1_-1"] {
            name.parse::<TaskId>().unwrap_err();
        }
    }
}
