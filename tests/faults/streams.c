/* Streams of stdio. libc flushes its own by a call that cannot be interposed, so a stream opened for writing below
 * the armed folder is rebuilt on a cookie whose write function is the counted `write`: a FILE* then fails, or ends
 * the process, exactly where its buffer is flushed.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "shim.h"

struct stream {
    int fd;
    FILE *file;
    struct stream *next;
};
static struct stream *streams;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

static ssize_t stream_read(void *cookie, char *bytes, size_t size) {
    return read(((struct stream *)cookie)->fd, bytes, size);
}

/* As libc does for its own streams: goes on after a partial write, stops at an error. */
static ssize_t stream_write(void *cookie, const char *bytes, size_t size) {
    size_t done = 0;
    while (done < size) {
        ssize_t wrote = write(((struct stream *)cookie)->fd, bytes + done, size - done);
        if (wrote < 0) break;
        done += (size_t)wrote;
    }
    return (ssize_t)done;
}

static int stream_seek(void *cookie, off64_t *at, int from) {
    off64_t now = lseek64(((struct stream *)cookie)->fd, *at, from);
    if (now < 0) return -1;
    *at = now;
    return 0;
}

static int stream_close(void *cookie) {
    struct stream *stream = cookie, **link = &streams;
    pthread_mutex_lock(&lock);
    while (*link && *link != stream) link = &(*link)->next;
    if (*link) *link = stream->next;
    pthread_mutex_unlock(&lock);
    int result = close(stream->fd);
    free(stream);
    return result;
}

static FILE *stream_on(int fd, const char *how) {
    cookie_io_functions_t functions = {stream_read, stream_write, stream_seek, stream_close};
    struct stream *stream = malloc(sizeof *stream);
    if (!stream) return NULL;
    stream->fd = fd;
    stream->file = fopencookie(stream, how, functions);
    if (!stream->file) {
        free(stream);
        return NULL;
    }
    pthread_mutex_lock(&lock);
    stream->next = streams;
    streams = stream;
    pthread_mutex_unlock(&lock);
    return stream->file;
}

static int stream_fd(FILE *file) {
    int fd = -1;
    pthread_mutex_lock(&lock);
    for (struct stream *stream = streams; stream; stream = stream->next)
        if (stream->file == file) fd = stream->fd;
    pthread_mutex_unlock(&lock);
    return fd;
}

int fileno(FILE *file) {
    int fd = streams ? stream_fd(file) : -1;
    return fd >= 0 ? fd : NEXT(fileno)(file);
}
int fileno_unlocked(FILE *file) { return fileno(file); }

static int open_flags(const char *how) {
    int update = strchr(how, '+') != NULL;
    int flags = update ? O_RDWR : O_WRONLY;
    if (how[0] == 'w') flags |= O_CREAT | O_TRUNC;
    if (how[0] == 'a') flags |= O_CREAT | O_APPEND;
    if (strchr(how, 'x')) flags |= O_EXCL;
    if (strchr(how, 'e')) flags |= O_CLOEXEC;
    return flags;
}

static int for_writing(const char *how) { return how[0] != 'r' || strchr(how, '+') != NULL; }

static FILE *counted_fopen(const char *given, const char *how) {
    int fd = counted_open(AT_FDCWD, given, open_flags(how), 0666);
    if (fd < 0) return NULL;
    FILE *file = stream_on(fd, how);
    if (!file) close(fd);
    return file;
}

#define FOPEN(name)                                                                        \
    FILE *name(const char *given, const char *how) {                                       \
        char path[PATH_MAX];                                                               \
        if (!for_writing(how) || !path_counts(AT_FDCWD, given, path)) return NEXT(name)(given, how); \
        return counted_fopen(given, how);                                                  \
    }
FOPEN(fopen)
FOPEN(fopen64)

FILE *fdopen(int fd, const char *how) {
    char path[PATH_MAX];
    if (!for_writing(how) || !fd_counts(fd, path)) return NEXT(fdopen)(fd, how);
    return stream_on(fd, how);
}
