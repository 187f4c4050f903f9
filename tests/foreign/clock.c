/* A machine whose clock somebody sets: the wall clock is off by the seconds that the file named in TRAMITE_TEST_CLOCK says, read anew each
 * time. Preloaded into a process of a test (tests/src/other_clock.rs). Time that only passes is left alone, as by whoever sets a clock. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

static long off(void) {
    const char *path = getenv("TRAMITE_TEST_CLOCK");
    char text[32] = {0};
    int file = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    if (file < 0)
        return 0;
    if (read(file, text, sizeof text - 1) < 0)
        text[0] = 0;
    close(file);
    return atol(text);
}

int clock_gettime(clockid_t clock, struct timespec *now) {
    static int (*system_clock)(clockid_t, struct timespec *);
    if (!system_clock)
        system_clock = (int (*)(clockid_t, struct timespec *))dlsym(RTLD_NEXT, "clock_gettime");
    int failed = system_clock(clock, now);
    if (!failed && clock == CLOCK_REALTIME)
        now->tv_sec += off();
    return failed;
}
