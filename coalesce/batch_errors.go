package coalesce

import (
	"fmt"
	"maps"
	"slices"
)

// Errors has an error for each key that failed. A [Batcher]'s Fetch returns it,
// or an error that wraps it, as its error: the other keys of the batch are not
// concerned. A nil error in it is none.
type Errors[K comparable] map[K]error

// Error tells how many keys failed, and how one of them did.
func (e Errors[K]) Error() string {
	failed := e.Unwrap()
	for key, err := range e {
		if err != nil {
			return fmt.Sprintf("coalesce: %d of the keys failed, among them %v: %v", len(failed), key, err)
		}
	}
	return "coalesce: no key failed"
}

// Unwrap returns the errors, for errors.Is and errors.As.
func (e Errors[K]) Unwrap() []error {
	return slices.DeleteFunc(slices.Collect(maps.Values(e)), func(err error) bool { return err == nil })
}
