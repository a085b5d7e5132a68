//go:build unix

package shed

import (
	"syscall"
	"time"
)

// processTime returns the processor time that the process has used, if that is known.
func processTime() (time.Duration, bool) {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0, false
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano()), true
}
