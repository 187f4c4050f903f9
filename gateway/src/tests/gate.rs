//! A disk whose syncs wait while a gate is shut, so that a test can do something while a group of the journal is under way.

use std::{
    io,
    path::Path,
    sync::{Arc, Condvar, Mutex},
};

use tramite_store::disk::{Access, Disk, DiskFile, FileInfo, Lock, RealDisk};

/// The system's disk behind a gate.
#[derive(Debug, Clone, Default)]
pub(super) struct GatedDisk {
    gate: Arc<Gate>,
}

#[derive(Debug, Default)]
struct Gate {
    state: Mutex<State>,
    moved: Condvar,
}

#[derive(Debug, Default)]
struct State {
    shut: bool,
    waiting: usize,
}

#[derive(Debug)]
struct GatedFile {
    file: Arc<dyn DiskFile>,
    gate: Arc<Gate>,
}

impl GatedDisk {
    pub(super) fn shut(&self) {
        self.gate.state.lock().unwrap().shut = true;
    }

    pub(super) fn open(&self) {
        self.gate.state.lock().unwrap().shut = false;
        self.gate.moved.notify_all();
    }

    /// Resolves when a sync waits at the gate.
    pub(super) async fn someone_waits(&self) {
        let gate = Arc::clone(&self.gate);
        let waiting = move || drop(gate.moved.wait_while(gate.state.lock().unwrap(), |state| state.waiting == 0));
        tokio::task::spawn_blocking(waiting).await.unwrap();
    }
}

impl Gate {
    fn pass(&self) {
        let mut state = self.state.lock().unwrap();
        state.waiting += 1;
        self.moved.notify_all();
        let mut state = self.moved.wait_while(state, |state| state.shut).unwrap();
        state.waiting -= 1;
    }
}

impl Disk for GatedDisk {
    fn create_dir(&self, path: &Path) -> io::Result<()> {
        RealDisk.create_dir(path)
    }

    fn list(&self, path: &Path) -> io::Result<Vec<String>> {
        RealDisk.list(path)
    }

    fn info(&self, path: &Path) -> io::Result<Option<FileInfo>> {
        RealDisk.info(path)
    }

    fn open(&self, path: &Path, access: Access) -> io::Result<Arc<dyn DiskFile>> {
        let (file, gate) = (RealDisk.open(path, access)?, Arc::clone(&self.gate));
        Ok(Arc::new(GatedFile { file, gate }))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        RealDisk.rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        RealDisk.remove(path)
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        RealDisk.sync_dir(path)
    }

    fn lock(&self, path: &Path) -> io::Result<Option<Box<dyn Lock>>> {
        RealDisk.lock(path)
    }
}

impl DiskFile for GatedFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.file.read_at(buffer, offset)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.file.write_at(bytes, offset)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.gate.pass();
        self.file.sync_data()
    }

    fn allocate(&self, length: u64) -> io::Result<()> {
        self.file.allocate(length)
    }

    fn punch(&self, offset: u64, length: u64) -> io::Result<()> {
        self.file.punch(offset, length)
    }

    fn length(&self) -> io::Result<u64> {
        self.file.length()
    }
}
