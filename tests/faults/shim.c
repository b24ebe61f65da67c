/* Counts the operations that change files below one folder, and makes the n-th of them fail or be the last.
 *
 * Preloaded into a process (LD_PRELOAD), it stands in front of libc for the whole process, C and C++ libraries
 * included. Nothing is counted until `shim_arm`, nor outside the armed folder. Streams of stdio: see streams.c.
 *
 * Not seen: stores into mapped memory (numpy.memmap, the -shm file of SQLite's WAL), streams opened before
 * arming, and system calls made without libc. Linux with glibc only.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

#include "shim.h"

/* The numbers are shared with harness.py. */
enum mode { COUNT, FAIL_EIO, FAIL_ENOSPC, SHORT_WRITE, FULL, GONE, KILL_BEFORE, KILL_AFTER, KILL_TORN };

enum kind { DATA, SPACE, RELEASE }; /* writes bytes; may need space otherwise; gives space back */

enum verdict { GO, FAIL, HALF, HALF_THEN_DIE, THEN_DIE };

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static char root[PATH_MAX];
static size_t root_length;
static volatile int armed;
static enum mode mode;
static long target, counted, fired;
static int fail_next_write;
static char *record;
static size_t record_length, record_room;

/* --- control */

int shim_arm(const char *folder, long n, int how) {
    char real[PATH_MAX];
    if (!realpath(folder, real)) return -1;
    pthread_mutex_lock(&lock);
    strcpy(root, real);
    root_length = strlen(root);
    mode = (enum mode)how;
    target = n;
    counted = fired = 0;
    fail_next_write = 0;
    record_length = 0;
    armed = 1;
    pthread_mutex_unlock(&lock);
    return 0;
}

void shim_disarm(void) { armed = 0; }

/* Operations since arming. */
long shim_count(void) { return counted; }

/* Operations that were made to fail or were cut short. */
long shim_fired(void) { return fired; }

/* Copies the record ("operation\0path\0second path\0" each; kept in COUNT mode) and returns its length. */
size_t shim_record(char *out, size_t room) {
    if (out) memcpy(out, record, record_length < room ? record_length : room);
    return record_length;
}

static void die(void) __attribute__((noreturn));
static void die(void) {
    for (;;) kill(getpid(), SIGKILL);
}

/* --- which paths count */

static int below_root(const char *path) {
    return strncmp(path, root, root_length) == 0 && (path[root_length] == '/' || path[root_length] == 0);
}

static int fd_path(int fd, char *out) {
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, out, PATH_MAX - 1);
    if (length < 0) return 0;
    out[length] = 0;
    return 1;
}

static int absolute(int folder, const char *path, char *out) {
    char base[PATH_MAX];
    if (path[0] == '/') return snprintf(out, PATH_MAX, "%s", path) < PATH_MAX;
    if (folder == AT_FDCWD ? !getcwd(base, sizeof base) : !fd_path(folder, base)) return 0;
    return snprintf(out, PATH_MAX, "%s/%s", base, path) < PATH_MAX;
}

/* The path with its parent folders resolved; its last part stays as it is, since it need not exist. */
static int resolve(int folder, const char *path, char *out) {
    char full[PATH_MAX], parent[PATH_MAX];
    if (!path || !absolute(folder, path, full)) return 0;
    size_t length = strlen(full);
    while (length > 1 && full[length - 1] == '/') full[--length] = 0;
    char *name = strrchr(full, '/');
    *name++ = 0;
    if (!realpath(full[0] ? full : "/", parent)) return 0;
    return snprintf(out, PATH_MAX, "%s/%s", strcmp(parent, "/") ? parent : "", name) < PATH_MAX;
}

int fd_counts(int fd, char *path) {
    int saved = errno, inside = armed && fd_path(fd, path) && below_root(path);
    errno = saved;
    return inside;
}

int path_counts(int folder, const char *given, char *path) {
    int saved = errno, inside = armed && resolve(folder, given, path) && below_root(path);
    errno = saved;
    return inside;
}

/* --- what happens to an operation */

static void append(const char *text) {
    size_t length = strlen(text) + 1;
    if (record_length + length > record_room) {
        record_room = 2 * (record_length + length) + 4096;
        record = realloc(record, record_room);
        if (!record) abort();
    }
    memcpy(record + record_length, text, length);
    record_length += length;
}

static enum verdict fail_with(int error) {
    fired++;
    errno = error;
    return FAIL;
}

static enum verdict cut(enum kind kind, size_t size) {
    if (kind != DATA) return GO;
    if (mode == SHORT_WRITE) {
        if (size < 2) return fail_with(ENOSPC);
        fail_next_write = 1;
    }
    fired++;
    return mode == SHORT_WRITE ? HALF : HALF_THEN_DIE;
}

static enum verdict judge(enum kind kind, size_t size) {
    long number = ++counted;
    if (fail_next_write && kind == DATA) {
        fail_next_write = 0;
        return fail_with(ENOSPC);
    }
    if (mode == FULL && number >= target && kind != RELEASE) return fail_with(ENOSPC);
    if (mode == GONE && number >= target) return fail_with(EIO);
    if (number != target) return GO;
    switch (mode) {
    case FAIL_EIO: return fail_with(EIO);
    case FAIL_ENOSPC: return fail_with(ENOSPC);
    case SHORT_WRITE:
    case KILL_TORN: return cut(kind, size);
    case KILL_BEFORE: die();
    case KILL_AFTER: return THEN_DIE;
    default: return GO;
    }
}

static enum verdict decide(const char *operation, enum kind kind, size_t size, const char *path, const char *second) {
    pthread_mutex_lock(&lock);
    if (mode == COUNT) {
        append(operation);
        append(path);
        append(second);
    }
    enum verdict verdict = judge(kind, size);
    pthread_mutex_unlock(&lock);
    return verdict;
}

#define CARRY_OUT(verdict, failed, whole, half)  \
    switch (verdict) {                           \
    case FAIL: return failed;                    \
    case HALF: return half;                      \
    case HALF_THEN_DIE: (void)!(half); die();    \
    case THEN_DIE: (void)!(whole); die();        \
    default: return whole;                       \
    }

#define ON_FD(operation, kind, fd, size, whole, half)            \
    char path[PATH_MAX];                                         \
    if (!fd_counts(fd, path)) return whole;                      \
    CARRY_OUT(decide(operation, kind, size, path, ""), -1, whole, half)

#define ON_PATH(operation, kind, folder, given, whole)           \
    char path[PATH_MAX];                                         \
    if (!path_counts(folder, given, path)) return whole;         \
    CARRY_OUT(decide(operation, kind, 0, path, ""), -1, whole, whole)

/* --- writes */

static size_t iov_bytes(const struct iovec *parts, int count) {
    size_t total = 0;
    for (int i = 0; i < count; i++) total += parts[i].iov_len;
    return total;
}

/* The leading half of the bytes: returns how many entries of `out` hold it. */
static int iov_half(const struct iovec *parts, int count, struct iovec *out) {
    size_t left = iov_bytes(parts, count) / 2;
    int used = 0;
    for (; used < count && used < IOV_MAX && left > 0; used++) {
        out[used] = parts[used];
        if (out[used].iov_len > left) out[used].iov_len = left;
        left -= out[used].iov_len;
    }
    return used;
}

ssize_t write(int fd, const void *bytes, size_t size) {
    ON_FD("write", DATA, fd, size, NEXT(write)(fd, bytes, size), NEXT(write)(fd, bytes, size / 2))
}

#define PWRITE(name, offset_type)                                                             \
    ssize_t name(int fd, const void *bytes, size_t size, offset_type at) {                    \
        ON_FD("pwrite", DATA, fd, size, NEXT(name)(fd, bytes, size, at),                      \
              NEXT(name)(fd, bytes, size / 2, at))                                            \
    }
PWRITE(pwrite, off_t)
PWRITE(pwrite64, off64_t)

ssize_t writev(int fd, const struct iovec *parts, int count) {
    struct iovec half[IOV_MAX];
    ON_FD("writev", DATA, fd, iov_bytes(parts, count), NEXT(writev)(fd, parts, count),
          NEXT(writev)(fd, half, iov_half(parts, count, half)))
}

#define PWRITEV(name, offset_type)                                                            \
    ssize_t name(int fd, const struct iovec *parts, int count, offset_type at) {              \
        struct iovec half[IOV_MAX];                                                           \
        ON_FD("pwritev", DATA, fd, iov_bytes(parts, count), NEXT(name)(fd, parts, count, at), \
              NEXT(name)(fd, half, iov_half(parts, count, half), at))                         \
    }
PWRITEV(pwritev, off_t)
PWRITEV(pwritev64, off64_t)

#define PWRITEV2(name, offset_type)                                                           \
    ssize_t name(int fd, const struct iovec *parts, int count, offset_type at, int flags) {   \
        struct iovec half[IOV_MAX];                                                           \
        ON_FD("pwritev", DATA, fd, iov_bytes(parts, count),                                   \
              NEXT(name)(fd, parts, count, at, flags),                                        \
              NEXT(name)(fd, half, iov_half(parts, count, half), at, flags))                  \
    }
PWRITEV2(pwritev2, off_t)
PWRITEV2(pwritev64v2, off64_t)

#define SENDFILE(name, offset_type)                                                           \
    ssize_t name(int to, int from, offset_type *at, size_t size) {                            \
        ON_FD("sendfile", DATA, to, size, NEXT(name)(to, from, at, size),                     \
              NEXT(name)(to, from, at, size / 2))                                             \
    }
SENDFILE(sendfile, off_t)
SENDFILE(sendfile64, off64_t)

ssize_t copy_file_range(int from, off64_t *from_at, int to, off64_t *to_at, size_t size, unsigned flags) {
    ON_FD("copy_file_range", DATA, to, size, NEXT(copy_file_range)(from, from_at, to, to_at, size, flags),
          NEXT(copy_file_range)(from, from_at, to, to_at, size / 2, flags))
}

/* --- making durable, changing size */

#define ONE_FD(name, kind)                                         \
    int name(int fd) { ON_FD(#name, kind, fd, 0, NEXT(name)(fd), NEXT(name)(fd)) }
ONE_FD(fsync, SPACE)
ONE_FD(fdatasync, SPACE)
ONE_FD(syncfs, SPACE)

#define FTRUNCATE(name, offset_type)                               \
    int name(int fd, offset_type size) {                           \
        ON_FD("ftruncate", RELEASE, fd, 0, NEXT(name)(fd, size), NEXT(name)(fd, size)) \
    }
FTRUNCATE(ftruncate, off_t)
FTRUNCATE(ftruncate64, off64_t)

#define TRUNCATE(name, offset_type)                                \
    int name(const char *given, offset_type size) {                \
        ON_PATH("truncate", RELEASE, AT_FDCWD, given, NEXT(name)(given, size)) \
    }
TRUNCATE(truncate, off_t)
TRUNCATE(truncate64, off64_t)

#define FALLOCATE(name, offset_type)                               \
    int name(int fd, int how, offset_type at, offset_type size) {  \
        ON_FD("fallocate", SPACE, fd, 0, NEXT(name)(fd, how, at, size), NEXT(name)(fd, how, at, size)) \
    }
FALLOCATE(fallocate, off_t)
FALLOCATE(fallocate64, off64_t)

/* posix_fallocate returns the error instead of setting errno. */
#define POSIX_FALLOCATE(name, offset_type)                                                     \
    int name(int fd, offset_type at, offset_type size) {                                       \
        char path[PATH_MAX];                                                                   \
        if (!fd_counts(fd, path)) return NEXT(name)(fd, at, size);                             \
        CARRY_OUT(decide("fallocate", SPACE, 0, path, ""), errno, NEXT(name)(fd, at, size), 0) \
    }
POSIX_FALLOCATE(posix_fallocate, off_t)
POSIX_FALLOCATE(posix_fallocate64, off64_t)

/* --- names */

static int counted_rename(int from_folder, const char *from, int to_folder, const char *to, unsigned flags) {
    char old[PATH_MAX] = "", new[PATH_MAX] = "";
    int inside = path_counts(from_folder, from, old) | path_counts(to_folder, to, new);
    if (!inside) return NEXT(renameat2)(from_folder, from, to_folder, to, flags);
    CARRY_OUT(decide("rename", SPACE, 0, old, new), -1, NEXT(renameat2)(from_folder, from, to_folder, to, flags), -1)
}
int rename(const char *from, const char *to) { return counted_rename(AT_FDCWD, from, AT_FDCWD, to, 0); }
int renameat(int a, const char *from, int b, const char *to) { return counted_rename(a, from, b, to, 0); }
int renameat2(int a, const char *from, int b, const char *to, unsigned flags) {
    return counted_rename(a, from, b, to, flags);
}

int linkat(int from_folder, const char *from, int to_folder, const char *to, int flags) {
    ON_PATH("link", SPACE, to_folder, to, NEXT(linkat)(from_folder, from, to_folder, to, flags))
}
int link(const char *from, const char *to) { return linkat(AT_FDCWD, from, AT_FDCWD, to, 0); }

int symlinkat(const char *from, int folder, const char *to) {
    ON_PATH("symlink", SPACE, folder, to, NEXT(symlinkat)(from, folder, to))
}
int symlink(const char *from, const char *to) { return symlinkat(from, AT_FDCWD, to); }

int unlink(const char *given) { ON_PATH("unlink", RELEASE, AT_FDCWD, given, NEXT(unlink)(given)) }
int rmdir(const char *given) { ON_PATH("rmdir", RELEASE, AT_FDCWD, given, NEXT(rmdir)(given)) }
int remove(const char *given) { ON_PATH("unlink", RELEASE, AT_FDCWD, given, NEXT(remove)(given)) }
int unlinkat(int folder, const char *given, int flags) {
    const char *operation = flags & AT_REMOVEDIR ? "rmdir" : "unlink";
    ON_PATH(operation, RELEASE, folder, given, NEXT(unlinkat)(folder, given, flags))
}

int mkdirat(int folder, const char *given, mode_t bits) {
    ON_PATH("mkdir", SPACE, folder, given, NEXT(mkdirat)(folder, given, bits))
}
int mkdir(const char *given, mode_t bits) { return mkdirat(AT_FDCWD, given, bits); }

/* --- opening: only what may create or empty a file is counted */

int counted_open(int folder, const char *given, int flags, mode_t bits) {
    if (!(flags & (O_CREAT | O_TRUNC)) && (flags & O_TMPFILE) != O_TMPFILE)
        return NEXT(openat64)(folder, given, flags, bits);
    ON_PATH("open", SPACE, folder, given, NEXT(openat64)(folder, given, flags, bits))
}

static int takes_bits(int flags) { return (flags & O_CREAT) || (flags & O_TMPFILE) == O_TMPFILE; }

#define BITS(last, flags)                                  \
    mode_t bits = 0;                                       \
    if (takes_bits(flags)) {                               \
        va_list rest;                                      \
        va_start(rest, last);                              \
        bits = va_arg(rest, mode_t);                       \
        va_end(rest);                                      \
    }

int open(const char *given, int flags, ...) {
    BITS(flags, flags)
    return counted_open(AT_FDCWD, given, flags, bits);
}
int open64(const char *given, int flags, ...) {
    BITS(flags, flags)
    return counted_open(AT_FDCWD, given, flags | O_LARGEFILE, bits);
}
int openat(int folder, const char *given, int flags, ...) {
    BITS(flags, flags)
    return counted_open(folder, given, flags, bits);
}
int openat64(int folder, const char *given, int flags, ...) {
    BITS(flags, flags)
    return counted_open(folder, given, flags | O_LARGEFILE, bits);
}
int creat(const char *given, mode_t bits) {
    return counted_open(AT_FDCWD, given, O_CREAT | O_WRONLY | O_TRUNC, bits);
}
int creat64(const char *given, mode_t bits) { return creat(given, bits); }
