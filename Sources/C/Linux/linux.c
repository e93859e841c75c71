#include "CLinux.h"
#include <errno.h>
#include <fcntl.h>
#include <link.h>
#ifdef __GLIBC__
#include <malloc.h>
#endif
#include <pthread.h>
#include <signal.h>
#include <spawn.h>
#include <sys/eventfd.h>
#include <sys/inotify.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/resource.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <sys/wait.h>
#include <unistd.h>

static int result(int value) { return value < 0 ? -errno : value; }

int clinux_open_read(const char *path) { return result(open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY)); }

int clinux_open_write(const char *path, unsigned mode) {
    return result(open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, mode));
}

int clinux_open_update(const char *path, unsigned mode) {
    return result(open(path, O_WRONLY | O_CREAT | O_CLOEXEC, mode));
}

int clinux_open_append(const char *path, unsigned mode) {
    return result(open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, mode));
}

int clinux_open_folder(const char *path) { return result(open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC)); }

int clinux_open_lock(const char *path) { return result(open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0640)); }

int clinux_lock(int fd) {
    struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
    return result(fcntl(fd, F_OFD_SETLK, &lock));
}

void clinux_start_writing(int fd, uint64_t offset, uint64_t count) {
    sync_file_range(fd, (off_t)offset, (off_t)count, SYNC_FILE_RANGE_WRITE);
}

static int describe(int failed, const struct stat *s, struct clinux_file *out) {
    if (failed) return -errno;
    out->device = s->st_dev;
    out->inode = s->st_ino;
    out->size = s->st_size < 0 ? 0 : (uint64_t)s->st_size;
    out->links = s->st_nlink;
    out->modified = (int64_t)s->st_mtim.tv_sec * 1000000000 + s->st_mtim.tv_nsec;
    out->kind = S_ISREG(s->st_mode) ? 1 : S_ISDIR(s->st_mode) ? 2 : S_ISSOCK(s->st_mode) ? 3 : 0;
    return 0;
}

int clinux_terminal_size(int fd) {
    struct winsize size;
    if (ioctl(fd, TIOCGWINSZ, &size) < 0) return -errno;
    return size.ws_row << 16 | size.ws_col;
}

int clinux_is_open_to_others(const char *path) {
    struct stat s;
    if (stat(path, &s) < 0) return -errno;
    return (s.st_mode & S_IROTH) != 0;
}

int clinux_stat(const char *path, struct clinux_file *out) {
    struct stat s;
    return describe(stat(path, &s), &s, out);
}

int clinux_fstat(int fd, struct clinux_file *out) {
    struct stat s;
    return describe(fstat(fd, &s), &s, out);
}

int clinux_is_remote(const char *path) {
    struct statfs s;
    if (statfs(path, &s)) return 0;
    switch ((uint32_t)s.f_type) {
    case 0x6969:      // NFS
    case 0xff534d42:  // CIFS
    case 0xfe534d42:  // SMB2
    case 0x517b:      // SMB
    case 0x65735546:  // FUSE
    case 0x01021997:  // 9P
    case 0x00c36400:  // Ceph
    case 0x5346414f:  // AFS
    case 0x73757245:  // Coda
    case 0x0bd00bd0:  // Lustre
    case 0x47504653:  // GPFS
    case 0x01161970:  // GFS2
    case 0x7461636f:  // OCFS2
        return 1;
    }
    return 0;
}

int clinux_eventfd(void) { return result(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)); }

int clinux_inotify(void) { return result(inotify_init1(IN_CLOEXEC | IN_NONBLOCK)); }

int clinux_watch_folder(int fd, const char *path) {
    return result(inotify_add_watch(
        fd, path, IN_CREATE | IN_DELETE | IN_MODIFY | IN_MOVED_FROM | IN_MOVED_TO | IN_ATTRIB | IN_DELETE_SELF | IN_MOVE_SELF | IN_ONLYDIR));
}

int clinux_unwatch(int fd, int watch) { return result(inotify_rm_watch(fd, watch)); }

int clinux_mask_is_folder(uint32_t mask) { return (mask & IN_ISDIR) != 0; }

uint64_t clinux_descriptor_limit(void) {
    struct rlimit limit;
    return getrlimit(RLIMIT_NOFILE, &limit) ? 1024 : limit.rlim_cur;
}

int clinux_mask_is_overflow(uint32_t mask) { return (mask & IN_Q_OVERFLOW) != 0; }
int clinux_mask_is_modify(uint32_t mask) { return (mask & (IN_MODIFY | IN_ISDIR)) == IN_MODIFY; }

int clinux_stop_signals(void) {
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGINT);
    sigaddset(&set, SIGHUP);
    signal(SIGPIPE, SIG_IGN);
    int failed = pthread_sigmask(SIG_BLOCK, &set, 0);
    if (failed) return -failed;
    return result(signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK));
}

int clinux_next_signal(int fd) {
    struct signalfd_siginfo info;
    return read(fd, &info, sizeof info) == sizeof info ? (int)info.ssi_signo : 0;
}

void clinux_name_thread(const char *name) { prctl(PR_SET_NAME, name, 0, 0, 0); }

int clinux_start_shell(const char *command, int *output) {
    int ends[2];
    if (pipe2(ends, O_CLOEXEC)) return -errno;
    posix_spawn_file_actions_t actions;
    posix_spawnattr_t attributes;
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0);
    posix_spawn_file_actions_adddup2(&actions, ends[1], 1);
    posix_spawn_file_actions_addopen(&actions, 2, "/dev/null", O_WRONLY, 0);
    posix_spawn_file_actions_addclosefrom_np(&actions, 3);
    posix_spawnattr_init(&attributes);
    sigset_t none, usual;
    sigemptyset(&none);
    sigemptyset(&usual);
    sigaddset(&usual, SIGPIPE);
    posix_spawnattr_setsigmask(&attributes, &none);
    posix_spawnattr_setsigdefault(&attributes, &usual);
    posix_spawnattr_setpgroup(&attributes, 0);
    posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF | POSIX_SPAWN_SETPGROUP);
    char *arguments[] = {"sh", "-c", (char *)command, 0};
    pid_t process;
    int failed = posix_spawn(&process, "/bin/sh", &actions, &attributes, arguments, environ);
    posix_spawn_file_actions_destroy(&actions);
    posix_spawnattr_destroy(&attributes);
    close(ends[1]);
    if (failed) {
        close(ends[0]);
        return -failed;
    }
    *output = ends[0];
    return process;
}

void clinux_kill_group(int process) { kill(-process, SIGKILL); }

int clinux_exit_code(int process) {
    int status;
    pid_t ended = waitpid(process, &status, WNOHANG);
    if (ended < 0) return -errno;
    if (ended == 0) return -EAGAIN;
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

void clinux_give_back_blocks(int from_bytes, int kept_bytes) {
#ifdef __GLIBC__
    mallopt(M_MMAP_THRESHOLD, from_bytes);
    mallopt(M_TRIM_THRESHOLD, kept_bytes);
#else
    (void)from_bytes;
    (void)kept_bytes;
#endif
}

void clinux_give_back_free(void) {
#ifdef __GLIBC__
    malloc_trim(0);
#endif
}

// Segments that are not written to, not even by the loader, are the file's as it is.
static int unmap_code(struct dl_phdr_info *loaded, size_t size, void *context) {
    (void)size, (void)context;
    uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE);
    for (int i = 0; i < loaded->dlpi_phnum; i++) {
        const ElfW(Phdr) *segment = &loaded->dlpi_phdr[i];
        if (segment->p_type != PT_LOAD || segment->p_flags & PF_W) continue;
        uintptr_t start = loaded->dlpi_addr + segment->p_vaddr, end = start + segment->p_filesz;
        start = (start + page - 1) & -page, end &= -page;
        if (start < end) madvise((void *)start, end - start, MADV_DONTNEED);
    }
    return 0;
}

void clinux_unmap_code(void) { dl_iterate_phdr(unmap_code, 0); }
