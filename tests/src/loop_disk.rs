//! An ext4 file system of its own on a loop device, whose power can be cut.
//!
//! Knows: how to make, mount and cut one (Linux, root, `mkfs.ext4`, a loop device). Never knows: what is stored on it. The cut is the
//! kernel's own (`EXT4_IOC_SHUTDOWN` without a flush of the journal): whatever no barrier made durable is gone, as if the machine had
//! lost its power. What the file system has handed to its device stays: a device that loses its cache is another test.
//!
//! Invariant: the mount is seen only in a mount namespace that a child process of ours keeps. When the test ends, however that
//! comes, the child ends, and with it namespace, mount and loop device.

use std::{
    env,
    ffi::{OsStr, OsString},
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    process::{Child, ChildStdin, Command, Stdio},
    sync::OnceLock,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use rustix::{
    fs::{FlockOperation, flock},
    ioctl::{Opcode, Setter, ioctl, opcode},
};
use tempfile::TempDir;

use crate::component;

/// Room for a dozen of the largest messages; the image is sparse.
const BYTES: u64 = 1024 * 1024 * 1024;
/// Disks at a time on this machine: a kernel has eight loop devices unless it was told otherwise, and others use some.
const SLOTS: usize = 4;
/// `_IOR('X', 125, __u32)` of the kernel's ext4.h.
const EXT4_IOC_SHUTDOWN: Opcode = opcode::read::<u32>(b'X', 125);
/// `EXT4_GOING_FLAGS_NOLOGFLUSH`: nothing more is written, the file system's own journal neither.
const WITHOUT_FLUSH: u32 = 2;
/// A process that has just ended may still hold a file for a moment.
const BUSY_MAX: Duration = Duration::from_secs(10);
/// Between two tries meanwhile.
const BUSY_PAUSE: Duration = Duration::from_millis(10);

/// A file system that a test may cut off.
#[derive(Debug)]
pub struct LoopDisk {
    folder: TempDir,
    keeper: Child,
    // Its end is the keeper's end.
    _input: ChildStdin,
    _slot: File,
}

impl Drop for LoopDisk {
    fn drop(&mut self) {
        // The folder goes after it; in another namespace a mount point can be removed.
        let _ = self.keeper.kill();
        let _ = self.keeper.wait();
    }
}

/// True where such a disk can be had. Where not, says why in words; fails where nothing may be skipped.
///
/// # Errors
/// With `TRAMITE_REQUIRE_ALL=1`, when it cannot be had.
pub fn is_here() -> Result<bool> {
    static MISSING: OnceLock<Option<String>> = OnceLock::new();
    let Some(why) = MISSING.get_or_init(|| try_out().err().map(|error| format!("{error:#}"))) else { return Ok(true) };
    component::missing("power cuts, which need root, a loop device and mkfs.ext4 (e2fsprogs)", why)?;
    Ok(false)
}

/// One cut, with a file that was synced and one that was not.
fn try_out() -> Result<()> {
    ensure!(rustix::process::geteuid().is_root(), "this user is not root");
    let disk = LoopDisk::make()?;
    let (kept, lost) = (disk.seen_from_here().join("kept"), disk.seen_from_here().join("lost"));
    fs::write(&kept, "kept")?;
    File::open(&kept)?.sync_all()?;
    File::open(disk.seen_from_here())?.sync_all()?;
    fs::write(&lost, "lost")?;
    disk.cut()?;
    ensure!(fs::write(&kept, "late").is_err(), "a disk without power takes a write");
    disk.mount_again()?;
    ensure!(fs::read_to_string(&kept)? == "kept" && !lost.exists(), "the cut does not do what a power cut does");
    Ok(())
}

impl LoopDisk {
    /// Makes an empty file system and mounts it; waits while there are too many.
    ///
    /// # Errors
    /// When the machine has not what it takes.
    pub fn make() -> Result<Self> {
        let slot = slot()?;
        let folder = TempDir::with_prefix("tramite-disk")?;
        let image = folder.path().join("image");
        File::create(&image)?.set_len(BYTES)?;
        // Nothing is left for a kernel thread to do later, which would blur what a cut does.
        let options = ["-q", "-F", "-E", "lazy_itable_init=0,lazy_journal_init=0,nodiscard"];
        run("mkfs.ext4", options.map(OsStr::new).into_iter().chain([image.as_os_str()]))?;
        fs::create_dir(folder.path().join("mounted"))?;
        let mut keeper = Command::new("unshare")
            .args(["--mount", "--propagation", "private", "sh", "-c", "echo; exec cat >/dev/null"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .context("unshare")?;
        let input = keeper.stdin.take().context("its standard input")?;
        let mut output = keeper.stdout.take().context("its standard output")?;
        let disk = Self { folder, keeper, _input: input, _slot: slot };
        // Its first word comes from within.
        io::Read::read_exact(&mut output, &mut [0]).context("there is no mount namespace of one's own here")?;
        disk.mount()?;
        Ok(disk)
    }

    /// Where it is, for a process that was started through [`entrance`](Self::entrance).
    #[must_use]
    pub fn path(&self) -> PathBuf {
        self.folder.path().join("mounted")
    }

    /// Where it is for this process, which stands outside.
    #[must_use]
    pub fn seen_from_here(&self) -> PathBuf {
        let root = Path::new("/proc").join(self.keeper.id().to_string()).join("root");
        self.path().strip_prefix("/").map(|path| root.join(path)).unwrap_or(root)
    }

    /// What stands before a command whose process shall see it. It becomes that command: the process id stays.
    #[must_use]
    pub fn entrance(&self) -> Vec<OsString> {
        let namespace = format!("--mount=/proc/{}/ns/mnt", self.keeper.id());
        vec!["nsenter".into(), namespace.into(), "--".into()]
    }

    /// Cuts the power. Whoever writes or syncs from here on is told that it failed.
    ///
    /// # Errors
    /// When the kernel does not do it.
    pub fn cut(&self) -> Result<()> {
        shut_down(&File::open(self.seen_from_here())?).context("EXT4_IOC_SHUTDOWN")
    }

    /// Power is back: unmounts and mounts, by which the file system's journal is replayed. No process may have a file open here.
    ///
    /// # Errors
    /// When somebody has, or the file system is broken.
    pub fn mount_again(&self) -> Result<()> {
        let until = Instant::now() + BUSY_MAX;
        while let Err(error) = self.within("umount", &[self.path().as_os_str()]) {
            ensure!(Instant::now() < until, error);
            thread::sleep(BUSY_PAUSE);
        }
        self.mount()
    }

    fn mount(&self) -> Result<()> {
        let image = self.folder.path().join("image");
        // Without the mercy that ext4 has on programs that rename a file before they synced it.
        let options = ["-t", "ext4", "-o", "loop,noauto_da_alloc"].map(OsStr::new);
        let arguments: Vec<&OsStr> = options.into_iter().chain([image.as_os_str()]).collect();
        self.within("mount", &[&arguments[..], &[self.path().as_os_str()]].concat())
    }

    fn within(&self, command: &str, arguments: &[&OsStr]) -> Result<()> {
        let entrance = self.entrance();
        let (program, rest) = entrance.split_first().context("an entrance")?;
        let rest = rest.iter().map(OsString::as_os_str).chain([OsStr::new(command)]);
        run(program, rest.chain(arguments.iter().copied()))
    }
}

/// Waits for one of the few places; it is given back when the file is closed.
fn slot() -> Result<File> {
    let locks = env::temp_dir().join(format!("tramite-tests-disks-{}", rustix::process::geteuid().as_raw()));
    fs::create_dir_all(&locks)?;
    loop {
        for number in 0..SLOTS {
            let slot = File::create(locks.join(number.to_string()))?;
            if flock(&slot, FlockOperation::NonBlockingLockExclusive).is_ok() {
                return Ok(slot);
            }
        }
        thread::sleep(BUSY_PAUSE);
    }
}

fn run<'a>(command: impl AsRef<OsStr>, arguments: impl IntoIterator<Item = &'a OsStr>) -> Result<()> {
    let name = command.as_ref().to_string_lossy().into_owned();
    let output = Command::new(command).args(arguments).stdin(Stdio::null()).output().context(name.clone())?;
    ensure!(output.status.success(), "{name}: {}", String::from_utf8_lossy(&output.stderr).trim());
    Ok(())
}

#[expect(unsafe_code, reason = "the one system call that cuts a file system off; no crate offers it in a safe form")]
fn shut_down(within: &File) -> io::Result<()> {
    // SAFETY: the request is one of ext4 and reads one u32, which is what it is given; the descriptor is open for the whole call.
    Ok(unsafe { ioctl(within, Setter::<EXT4_IOC_SHUTDOWN, u32>::new(WITHOUT_FLUSH)) }?)
}
