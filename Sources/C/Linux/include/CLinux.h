#pragma once
#include "datagrams.h"
#include "sockets.h"
#include <stdint.h>

// What Glibc's Swift module leaves out or hides behind variadic calls and macros. Each returns -errno on failure.

/// Opens `path` for reading, without waiting on a FIFO and without becoming its terminal. Returns the descriptor.
int clinux_open_read(const char *path);
/// Creates or empties `path` for writing. Returns the descriptor.
int clinux_open_write(const char *path, unsigned mode);
/// Opens or creates `path` for writing anywhere. Returns the descriptor.
int clinux_open_update(const char *path, unsigned mode);
/// Opens or creates `path` for writing at its end. Returns the descriptor.
int clinux_open_append(const char *path, unsigned mode);
/// Opens the folder `path`, to sync it. Returns the descriptor.
int clinux_open_folder(const char *path);
/// Opens or creates `path` for the lock that one process holds at a time. Returns the descriptor.
int clinux_open_lock(const char *path);
/// Takes the write lock of the whole file (fcntl's record lock of an open file description). 0, or -EAGAIN if it is held.
int clinux_lock(int fd);

/// Has the kernel begin to write a stretch of a file to its disk, without waiting.
void clinux_start_writing(int fd, uint64_t offset, uint64_t count);

/// What identifies a file and how large it is.
struct clinux_file {
    uint64_t device;
    uint64_t inode;
    uint64_t size;
    uint64_t links;
    /// Nanoseconds since 1970.
    int64_t modified;
    /// 1 a regular file, 2 a folder, 3 a socket, 0 anything else.
    int kind;
};
int clinux_stat(const char *path, struct clinux_file *out);
/// Whether the file's mode lets everybody read it: 1 or 0, or -errno.
int clinux_is_open_to_others(const char *path);
int clinux_fstat(int fd, struct clinux_file *out);

/// Whether `path` lies on a file system that other machines may change (NFS, CIFS, FUSE and alike): 1 or 0.
int clinux_is_remote(const char *path);

/// An eventfd that does not block.
int clinux_eventfd(void);
/// An inotify descriptor that does not block.
int clinux_inotify(void);
/// Watches the folder `path` for what a tailing collector cares about. Returns the watch's number.
int clinux_watch_folder(int fd, const char *path);
int clinux_unwatch(int fd, int watch);
/// Which part of an inotify mask says what.
int clinux_mask_is_overflow(uint32_t mask);
int clinux_mask_is_modify(uint32_t mask);
int clinux_mask_is_folder(uint32_t mask);
/// The descriptors that this process may open.
uint64_t clinux_descriptor_limit(void);

/// Has the allocator give blocks from so many bytes on back to the system as soon as they are freed, and of the free end of
/// a thread's heap what is beyond `kept_bytes`.
void clinux_give_back_blocks(int from_bytes, int kept_bytes);
/// Gives the system back what the allocator holds and nobody uses, but for the free ends of other threads' heaps.
void clinux_give_back_free(void);
/// Unmaps the pages of the program's and its libraries' code and constants; those that are used come back, from the
/// kernel's cache of the files.
void clinux_unmap_code(void);

/// Blocks SIGTERM, SIGINT and SIGHUP in this thread and those it starts, ignores SIGPIPE, and returns a signalfd for them.
int clinux_stop_signals(void);
/// The next stop signal that waits on a signalfd, or 0.
int clinux_next_signal(int fd);
/// Names the calling thread; 15 bytes at most.
void clinux_name_thread(const char *name);

/// Rows << 16 | columns of the terminal behind `fd`, or -errno.
int clinux_terminal_size(int fd);

/// Starts `sh -c command` as leader of a process group of its own, without input and without our descriptors and signal
/// mask; what it writes can be read from `*output`. Returns its number.
int clinux_start_shell(const char *command, int *output);
/// Ends the process group `process` at once.
void clinux_kill_group(int process);
/// The exit code of `process` (128 + the signal that ended it), or -EAGAIN while it runs.
int clinux_exit_code(int process);
