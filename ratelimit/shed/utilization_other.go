//go:build !unix

package shed

import "time"

// processTime returns the processor time that the process has used, if that is known.
func processTime() (time.Duration, bool) { return 0, false }
