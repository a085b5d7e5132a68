package coalesce_test

// An error of Fetch may panic when it is looked into, such as a typed nil pointer:
// that is a panic of the fetch, which reaches its callers and nobody else.

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/require"

	"github.com/evenkeel-go/evenkeel/coalesce"
)

type fetchError struct{ cause error }

func (e *fetchError) Error() string { return "fetch" }
func (e *fetchError) Unwrap() error { return e.cause } // panics if e is nil

func TestFetchErrorThatPanicsWhenItIsLookedIntoReachesTheCallers(t *testing.T) {
	for _, endless := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			b := coalesce.Batcher[int, int]{Fetch: func(context.Context, []int) (map[int]int, error) { var e *fetchError; return nil, e }}
			ctx := t.Context()
			if endless {
				ctx = context.Background()
			}
			for range 2 {
				s := observe(func() coalesce.Result[int] {
					for _, r := range b.LoadAll(ctx, []int{1}) {
						return r
					}
					return coalesce.Result[int]{}
				})
				synctest.Wait()
				require.True(t, s.returned)
				_, ok := errors.AsType[*coalesce.PanicError](s.result.Err)
				require.True(t, ok)
				require.Zero(t, b.Stats().InFlight)
			}
		})
	}
}
