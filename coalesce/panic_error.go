package coalesce

import (
	"bytes"
	"fmt"
	"runtime/debug"
)

// A PanicError is a panic of the work, carried to the callers that waited for
// it.
//
// [Group.Do] panics with it in every caller, [Group.DoResult] and
// [Group.DoChan] return it as the error. All callers of one flight get the same
// *PanicError. When the work panics with a *PanicError, because it called Do of
// another Group and that panicked, it is passed on as it is, so that the stack
// stays the one of the first panic.
//
// A PanicError is not changed after it was made and is safe for concurrent use
// by multiple goroutines.
type PanicError struct {
	// Value is what the work gave to panic. For panic(nil) it is a
	// *runtime.PanicNilError, or nil under GODEBUG=panicnil=1.
	Value any

	// Stack is the stack of the goroutine that panicked, as debug.Stack formats
	// it, without the first line: that goroutine may be gone.
	Stack []byte
}

// Error returns the value and the stack: an unrecovered *PanicError prints
// where the work panicked, and not only where its caller waited.
func (p *PanicError) Error() string {
	if p == nil { // panic((*PanicError)(nil)) is a panic whose Value is this one
		return "<nil>"
	}
	return fmt.Sprintf("%v\n\n%s", p.Value, p.Stack)
}

// Unwrap returns Value if it is an error, otherwise nil.
func (p *PanicError) Unwrap() error {
	if p == nil {
		return nil
	}
	err, _ := p.Value.(error)
	return err
}

func newPanicError(value any) *PanicError {
	if p, ok := value.(*PanicError); ok && p != nil {
		return p
	}
	stack := debug.Stack()
	if i := bytes.IndexByte(stack, '\n'); i >= 0 {
		stack = stack[i+1:]
	}
	return &PanicError{Value: value, Stack: stack}
}
