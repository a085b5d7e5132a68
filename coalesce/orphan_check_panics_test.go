package coalesce_test

// An error of the work may panic when it is looked into, such as a typed nil
// pointer, also when the starter is dead.

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/require"

	"github.com/evenkeel-go/evenkeel/coalesce"
)

// queryError is the usual typed error; a nil one of it is not a nil error.
type queryError struct{ cause error }

func (e *queryError) Error() string { return "query" }
func (e *queryError) Unwrap() error { return e.cause } // panics if e is nil

func TestErrorThatPanicsWhenItIsLookedIntoReachesTheCallers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var g coalesce.Group[string, int]
		ctx, die := context.WithCancel(t.Context())
		finish := make(chan struct{})
		a := g.DoChan(ctx, "k", func(context.Context) (int, error) { <-finish; var e *queryError; return 0, e })
		b := g.DoChan(t.Context(), "k", mustNotRun)
		die()
		<-a
		close(finish)
		_, ok := errors.AsType[*coalesce.PanicError]((<-b).Err)
		require.True(t, ok)
	})
}

// A cause that is comparable by its type and not by its value.
type reason struct{ why any }

func (reason) Error() string { return "reason" }

func TestCauseThatCannotBeComparedReachesTheCallers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var g coalesce.Group[string, int]
		ctx, die := context.WithCancelCause(t.Context())
		finish := make(chan struct{})
		a := g.DoChan(ctx, "k", func(context.Context) (int, error) { <-finish; return 0, context.Cause(ctx) })
		b := g.DoChan(t.Context(), "k", mustNotRun)
		die(reason{[]int{1}})
		<-a
		close(finish)
		require.Error(t, (<-b).Err)
	})
}
