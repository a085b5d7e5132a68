package balance

import (
	"context"
	"errors"
)

// Outcome is what the end of a request says of its backend.
type Outcome uint8

const (
	// Success: the backend did its work.
	Success Outcome = iota

	// Failure: the backend is to blame. How long it took is learnt only if that is
	// longer than what was expected of it, so that failing at once does not look fast.
	Failure

	// Ignored: the request ended for reasons of the caller. It says nothing of the
	// backend's health, and of its latency only that it is no less.
	Ignored
)

// classify is the default of Options.Classify.
func classify(err error) Outcome {
	if errors.Is(err, context.Canceled) {
		return Ignored
	}
	return Failure
}
