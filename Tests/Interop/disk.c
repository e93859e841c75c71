// Records what a program does to a folder, and lets it fail: cc -shared -fPIC -O2 -o libdisk.so disk.c -ldl
// Loaded by LD_PRELOAD; DISK_ROOT names the folder, DISK_LOG the file that entries are appended to, DISK_FAULTS the plan
// of what fails, which may change at any time. disk.py writes the one and powerloss.py reads the other.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

enum kind { OPEN = 1, WRITE, TRUNCATE, ALLOCATE, SYNC_BEGIN, SYNC_END, RENAME, UNLINK, MKDIR, LINK, RMDIR };

// Then come two paths and the data, as long as `sizes` says.
struct entry {
    uint32_t kind, pid;
    int32_t fd;
    uint32_t flags;
    int64_t at, length;
    // CLOCK_MONOTONIC in ns: when the call had ended.
    uint64_t time;
    int32_t error;
    uint32_t sizes[3];
};

enum operation { OPENING, WRITING, SYNCING, RENAMING, RESIZING, MAKING, REMOVING, OPERATIONS };

// The file that DISK_FAULTS names, shared with the test.
struct plan {
    // Which operations fail, a bit each; with which error; how many in a thousand.
    _Atomic uint32_t failing;
    _Atomic int32_t error;
    _Atomic uint32_t share;
    // A write that fails has written a part, every second time, as on a disk that fills up.
    _Atomic uint32_t is_torn;
    _Atomic uint64_t random;
    // How many have failed.
    _Atomic uint32_t failed[OPERATIONS];
};

enum { MOST_FILES = 1 << 16 };
static char root[PATH_MAX];
static size_t root_length;
static int log_file = -1;
static struct plan *plan;
static _Atomic int64_t syncs;
static _Atomic unsigned char tracked[MOST_FILES];
// The order of the entries is the order of the calls: each is made and written down under this lock. Not a sync, which takes
// long: its beginning and its end are entries of their own.
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

__attribute__((constructor)) static void start(void) {
    const char *folder = getenv("DISK_ROOT"), *log = getenv("DISK_LOG"), *faults = getenv("DISK_FAULTS");
    if (!folder || !realpath(folder, root)) return;
    root_length = strlen(root);
    if (log) log_file = (int)syscall(SYS_openat, AT_FDCWD, log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    if (!faults) return;
    int file = (int)syscall(SYS_openat, AT_FDCWD, faults, O_RDWR | O_CLOEXEC);
    void *shared = mmap(0, sizeof *plan, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    if (shared == MAP_FAILED) abort();
    plan = shared;
    syscall(SYS_close, file);
}

// Whether the plan lets this one fail; then errno says why.
static int fails(enum operation operation) {
    if (!plan || !(plan->failing & 1u << operation)) return 0;
    uint64_t chance = plan->random += 0x9e3779b97f4a7c15;
    chance = (chance ^ chance >> 30) * 0xbf58476d1ce4e5b9;
    chance = (chance ^ chance >> 27) * 0x94d049bb133111eb;
    if ((chance ^ chance >> 31) % 1000 >= plan->share) return 0;
    plan->failed[operation]++;
    errno = plan->error;
    return 1;
}

#define NEXT(name) \
    static __typeof__(name) *next; \
    if (!next) next = (__typeof__(name) *)dlsym(RTLD_NEXT, #name)

static int is_tracked(int fd) { return fd >= 0 && fd < MOST_FILES && tracked[fd]; }

// The whole path, when it lies in the root.
static int resolve(int folder, const char *path, char *out) {
    if (!root_length || !path) return 0;
    if (path[0] == '/') {
        if (snprintf(out, PATH_MAX, "%s", path) >= PATH_MAX) return 0;
    } else {
        char above[PATH_MAX], link[64];
        ssize_t length;
        if (folder == AT_FDCWD) {
            if (!getcwd(above, sizeof above)) return 0;
        } else {
            snprintf(link, sizeof link, "/proc/self/fd/%d", folder);
            if ((length = readlink(link, above, sizeof above - 1)) < 0) return 0;
            above[length] = 0;
        }
        if (snprintf(out, PATH_MAX, "%.*s/%s", (int)strlen(above), above, path) >= PATH_MAX) return 0;
    }
    return strncmp(out, root, root_length) == 0 && (out[root_length] == '/' || out[root_length] == 0);
}

static void note(struct entry entry, const char *path, const char *other, const void *data, size_t size) {
    if (log_file < 0) return;
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    entry.time = (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
    entry.pid = (uint32_t)getpid();
    entry.sizes[0] = path ? (uint32_t)strlen(path) : 0;
    entry.sizes[1] = other ? (uint32_t)strlen(other) : 0;
    entry.sizes[2] = (uint32_t)size;
    struct iovec parts[4] = {
        {&entry, sizeof entry}, {(void *)path, entry.sizes[0]}, {(void *)other, entry.sizes[1]}, {(void *)data, size}};
    size_t whole = sizeof entry + entry.sizes[0] + entry.sizes[1] + size;
    if (syscall(SYS_writev, log_file, parts, 4) != (ssize_t)whole) abort();
}

// Does something to a name or a size, and notes it when it was done.
#define NAMES(operation, call, noted) \
    do { \
        pthread_mutex_lock(&lock); \
        int result = fails(operation) ? -1 : call; \
        int error = errno; \
        if (result == 0) noted; \
        pthread_mutex_unlock(&lock); \
        errno = error; \
        return result; \
    } while (0)

// Files

static int opened(int (*open_it)(int, const char *, int, mode_t), int folder, const char *path, int flags, mode_t mode) {
    char whole[PATH_MAX];
    if (!resolve(folder, path, whole)) {
        int fd = open_it(folder, path, flags, mode);
        if (fd >= 0 && fd < MOST_FILES) tracked[fd] = 0;
        return fd;
    }
    pthread_mutex_lock(&lock);
    struct stat status;
    int created = (flags & O_CREAT) && stat(whole, &status) != 0;
    int fd = (flags & O_ACCMODE) != O_RDONLY && fails(OPENING) ? -1 : open_it(folder, path, flags, mode);
    int error = errno;
    if (fd >= 0 && fd < MOST_FILES) {
        tracked[fd] = 1;
        note((struct entry){.kind = OPEN, .fd = fd, .flags = (uint32_t)flags, .at = created}, whole, 0, 0, 0);
    }
    pthread_mutex_unlock(&lock);
    errno = error;
    return fd;
}

static int next_openat(int folder, const char *path, int flags, mode_t mode) {
    NEXT(openat);
    return next(folder, path, flags, mode);
}

#define WITH_MODE \
    mode_t mode = 0; \
    if (flags & (O_CREAT | __O_TMPFILE)) { \
        va_list rest; \
        va_start(rest, flags); \
        mode = va_arg(rest, mode_t); \
        va_end(rest); \
    }

int open(const char *path, int flags, ...) { WITH_MODE return opened(next_openat, AT_FDCWD, path, flags, mode); }
int open64(const char *path, int flags, ...) { WITH_MODE return opened(next_openat, AT_FDCWD, path, flags, mode); }
int openat(int folder, const char *path, int flags, ...) { WITH_MODE return opened(next_openat, folder, path, flags, mode); }
int openat64(int folder, const char *path, int flags, ...) { WITH_MODE return opened(next_openat, folder, path, flags, mode); }
int creat(const char *path, mode_t mode) { return opened(next_openat, AT_FDCWD, path, O_CREAT | O_WRONLY | O_TRUNC, mode); }

int close(int fd) {
    NEXT(close);
    if (fd >= 0 && fd < MOST_FILES) tracked[fd] = 0;
    return next(fd);
}

static ssize_t failed_write(int fd, const void *bytes, size_t count, off_t at) {
    static unsigned char was_torn[MOST_FILES];
    if (!plan->is_torn || count < 2 || (was_torn[fd] = !was_torn[fd]) == 0) return -1;
    return at < 0 ? syscall(SYS_write, fd, bytes, count / 2) : syscall(SYS_pwrite64, fd, bytes, count / 2, at);
}

// Writes, and notes what the kernel took. `at` < 0: at the file's own place, which has moved behind it.
#define WRITTEN(call, at_, vector, count) \
    do { \
        if (!is_tracked(fd)) return call; \
        pthread_mutex_lock(&lock); \
        ssize_t result = fails(WRITING) ? failed_write(fd, (vector)->iov_base, (vector)->iov_len, at_) : call; \
        int error = errno; \
        if (result > 0) { \
            off_t at = (at_); \
            if (at < 0) at = lseek(fd, 0, SEEK_CUR) - result; \
            ssize_t left = result; \
            for (int i = 0; i < (count) && left > 0; i++) { \
                size_t size = (vector)[i].iov_len < (size_t)left ? (vector)[i].iov_len : (size_t)left; \
                note((struct entry){.kind = WRITE, .fd = fd, .at = at}, 0, 0, (vector)[i].iov_base, size); \
                at += (off_t)size; \
                left -= (ssize_t)size; \
            } \
        } \
        pthread_mutex_unlock(&lock); \
        errno = error; \
        return result; \
    } while (0)
#define ONE(bytes, count) (&(struct iovec){(void *)(bytes), count})

ssize_t write(int fd, const void *bytes, size_t count) {
    NEXT(write);
    WRITTEN(next(fd, bytes, count), -1, ONE(bytes, count), 1);
}
ssize_t pwrite(int fd, const void *bytes, size_t count, off_t at_) {
    NEXT(pwrite);
    WRITTEN(next(fd, bytes, count, at_), at_, ONE(bytes, count), 1);
}
ssize_t pwrite64(int fd, const void *bytes, size_t count, off64_t at_) {
    NEXT(pwrite64);
    WRITTEN(next(fd, bytes, count, at_), at_, ONE(bytes, count), 1);
}
ssize_t writev(int fd, const struct iovec *parts, int count) {
    NEXT(writev);
    WRITTEN(next(fd, parts, count), -1, parts, count);
}
ssize_t pwritev(int fd, const struct iovec *parts, int count, off_t at_) {
    NEXT(pwritev);
    WRITTEN(next(fd, parts, count, at_), at_, parts, count);
}
ssize_t pwritev64(int fd, const struct iovec *parts, int count, off64_t at_) {
    NEXT(pwritev64);
    WRITTEN(next(fd, parts, count, at_), at_, parts, count);
}
ssize_t pwritev2(int fd, const struct iovec *parts, int count, off_t at_, int flags) {
    NEXT(pwritev2);
    WRITTEN(next(fd, parts, count, at_, flags), at_, parts, count);
}

#define SIZED(call, noted) \
    do { \
        if (!is_tracked(fd)) return call; \
        NAMES(RESIZING, call, note((struct entry)noted, 0, 0, 0, 0)); \
    } while (0)
#define ENTRY(...) {__VA_ARGS__}

int ftruncate(int fd, off_t size) {
    NEXT(ftruncate);
    SIZED(next(fd, size), ENTRY(.kind = TRUNCATE, .fd = fd, .at = size));
}
int ftruncate64(int fd, off64_t size) {
    NEXT(ftruncate64);
    SIZED(next(fd, size), ENTRY(.kind = TRUNCATE, .fd = fd, .at = size));
}
int fallocate(int fd, int mode, off_t at, off_t size) {
    NEXT(fallocate);
    SIZED(next(fd, mode, at, size), ENTRY(.kind = ALLOCATE, .fd = fd, .flags = (uint32_t)mode, .at = at, .length = size));
}
int fallocate64(int fd, int mode, off64_t at, off64_t size) {
    NEXT(fallocate64);
    SIZED(next(fd, mode, at, size), ENTRY(.kind = ALLOCATE, .fd = fd, .flags = (uint32_t)mode, .at = at, .length = size));
}
// It returns its error.
int posix_fallocate(int fd, off_t at, off_t size) { return fallocate(fd, 0, at, size) == 0 ? 0 : errno; }

static int synced(int (*sync_it)(int), int fd) {
    if (!is_tracked(fd)) return sync_it(fd);
    int64_t number = ++syncs;
    pthread_mutex_lock(&lock);
    note((struct entry){.kind = SYNC_BEGIN, .fd = fd, .at = number}, 0, 0, 0, 0);
    pthread_mutex_unlock(&lock);
    int result = fails(SYNCING) ? -1 : sync_it(fd), error = errno;
    pthread_mutex_lock(&lock);
    note((struct entry){.kind = SYNC_END, .fd = fd, .at = number, .error = result == 0 ? 0 : error}, 0, 0, 0, 0);
    pthread_mutex_unlock(&lock);
    errno = error;
    return result;
}

int fsync(int fd) {
    NEXT(fsync);
    return synced(next, fd);
}
int fdatasync(int fd) {
    NEXT(fdatasync);
    return synced(next, fd);
}

// Names

static int linked(int kind, int result, const char *from, int is_from, const char *to, int is_to) {
    int error = errno;
    if (result == 0 && (is_from || is_to)) note((struct entry){.kind = (uint32_t)kind}, is_from ? from : 0, is_to ? to : 0, 0, 0);
    errno = error;
    return result;
}

// What crosses the root's border is noted with one path, and the reader refuses it.
#define TWO_NAMES(kind, from_folder, from, to_folder, to, call) \
    do { \
        char first[PATH_MAX], second[PATH_MAX]; \
        int is_first = resolve(from_folder, from, first), is_second = resolve(to_folder, to, second); \
        pthread_mutex_lock(&lock); \
        int is_failing = (is_first || is_second) && fails(RENAMING); \
        int result = linked(kind, is_failing ? -1 : call, first, is_first, second, is_second); \
        pthread_mutex_unlock(&lock); \
        return result; \
    } while (0)
#define ONE_NAME(operation, kind_, folder, path, call) \
    do { \
        char whole[PATH_MAX]; \
        if (!resolve(folder, path, whole)) return call; \
        NAMES(operation, call, note((struct entry){.kind = kind_}, whole, 0, 0, 0)); \
    } while (0)

int rename(const char *from, const char *to) {
    NEXT(rename);
    TWO_NAMES(RENAME, AT_FDCWD, from, AT_FDCWD, to, next(from, to));
}
int renameat(int from_folder, const char *from, int to_folder, const char *to) {
    NEXT(renameat);
    TWO_NAMES(RENAME, from_folder, from, to_folder, to, next(from_folder, from, to_folder, to));
}
int renameat2(int from_folder, const char *from, int to_folder, const char *to, unsigned flags) {
    NEXT(renameat2);
    if (flags & RENAME_EXCHANGE) abort();
    TWO_NAMES(RENAME, from_folder, from, to_folder, to, next(from_folder, from, to_folder, to, flags));
}
int link(const char *from, const char *to) {
    NEXT(link);
    TWO_NAMES(LINK, AT_FDCWD, from, AT_FDCWD, to, next(from, to));
}
int linkat(int from_folder, const char *from, int to_folder, const char *to, int flags) {
    NEXT(linkat);
    TWO_NAMES(LINK, from_folder, from, to_folder, to, next(from_folder, from, to_folder, to, flags));
}
int unlink(const char *path) {
    NEXT(unlink);
    ONE_NAME(REMOVING, UNLINK, AT_FDCWD, path, next(path));
}
int unlinkat(int folder, const char *path, int flags) {
    NEXT(unlinkat);
    ONE_NAME(REMOVING, flags & AT_REMOVEDIR ? RMDIR : UNLINK, folder, path, next(folder, path, flags));
}
int rmdir(const char *path) {
    NEXT(rmdir);
    ONE_NAME(REMOVING, RMDIR, AT_FDCWD, path, next(path));
}
int remove(const char *path) {
    struct stat status;
    return lstat(path, &status) == 0 && S_ISDIR(status.st_mode) ? rmdir(path) : unlink(path);
}
int mkdir(const char *path, mode_t mode) {
    NEXT(mkdir);
    ONE_NAME(MAKING, MKDIR, AT_FDCWD, path, next(path, mode));
}
int mkdirat(int folder, const char *path, mode_t mode) {
    NEXT(mkdirat);
    ONE_NAME(MAKING, MKDIR, folder, path, next(folder, path, mode));
}
