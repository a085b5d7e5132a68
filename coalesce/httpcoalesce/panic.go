package httpcoalesce

import (
	"bytes"
	"runtime/debug"

	"github.com/evenkeel-go/evenkeel/coalesce"
)

// newPanicError returns what the clients of a handler that has panicked panic with. It
// is called while that goroutine panics, so that the stack is the handler's.
func newPanicError(value any) *coalesce.PanicError {
	if p, ok := value.(*coalesce.PanicError); ok {
		return p
	}
	_, stack, _ := bytes.Cut(debug.Stack(), []byte("\n"))
	return &coalesce.PanicError{Value: value, Stack: stack}
}
