/* What shim.c and streams.c share. */
#include <dlfcn.h>
#include <sys/types.h>

/* The next definition of a function: libc's own. */
#define NEXT(name)                                                       \
    ({                                                                   \
        static __typeof__(&name) found;                                  \
        if (!found) found = (__typeof__(&name))dlsym(RTLD_NEXT, #name);  \
        found;                                                           \
    })

/* Whether changes to this file are counted now; `path` (PATH_MAX bytes) receives its absolute path. */
int fd_counts(int fd, char *path);
int path_counts(int folder, const char *given, char *path);

/* As openat; counted where it may create or empty a file. */
int counted_open(int folder, const char *given, int flags, mode_t bits);
