package shed_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/evenkeel-go/evenkeel/ratelimit/shed"
)

// listError is an error that may not be compared.
type listError []string

func (listError) Error() string { return "list" }

func TestFallbackAnswersForRefusalsAlone(t *testing.T) {
	broken := errors.New("broken")
	refused := &shed.Error{Class: shed.Sheddable, Reason: shed.Overloaded}
	var cause error
	f := shed.Fallback[string]{Answer: func(_ context.Context, err error) (string, error) {
		cause = err
		return "cheap", nil
	}}
	for _, tc := range []struct {
		answer string
		err    error
		want   string
		left   error
	}{
		{"dear", nil, "dear", nil},
		{"", refused, "cheap", nil},
		{"", fmt.Errorf("deep: %w", refused), "cheap", nil},
		{"", shed.ErrShed, "cheap", nil},
		{"", errors.Join(broken, shed.ErrShed), "cheap", nil},
		{"half", broken, "half", broken},
		{"", listError{}, "", listError{}},
		{"", context.Canceled, "", context.Canceled},
	} {
		cause = nil
		got, err := f.Do(t.Context(), func(context.Context) (string, error) { return tc.answer, tc.err })
		require.Equal(t, tc.want, got)
		require.Equal(t, tc.left, err)
		if tc.want == "cheap" {
			require.Equal(t, tc.err, cause)
		} else {
			require.NoError(t, cause, "it was not asked")
		}
	}
	require.Equal(t, shed.FallbackStats{Worked: 1, Failed: 3, FellBack: shed.Counts{1: 2, 2: 2}}, f.Stats())
}

func TestFallbackThatCannotAnswerIsCounted(t *testing.T) {
	broken := errors.New("broken")
	refused := &shed.Error{Reason: shed.Full}
	refuse := func(context.Context) (int, error) { return 0, refused }

	var none shed.Fallback[int]
	_, err := none.Do(t.Context(), refuse)
	require.Equal(t, refused, err)
	require.Equal(t, uint64(1), none.Stats().Unanswered)

	f := shed.Fallback[int]{Answer: func(context.Context, error) (int, error) { return 0, broken }}
	_, err = f.Do(t.Context(), refuse)
	require.Equal(t, broken, err)

	ctx, cancel := context.WithCancel(t.Context())
	_, err = f.Do(ctx, func(context.Context) (int, error) { cancel(); return 0, refused })
	require.Equal(t, context.Canceled, err)
	_, err = f.Do(ctx, func(context.Context) (int, error) { panic("not begun") })
	require.Equal(t, context.Canceled, err)
	require.Equal(t, shed.FallbackStats{Unanswered: 2}, f.Stats())

	f.Answer = func(context.Context, error) (int, error) { panic("cheap") }
	require.PanicsWithValue(t, "cheap", func() { _, _ = f.Do(t.Context(), refuse) })
	require.PanicsWithValue(t, "dear", func() { _, _ = f.Do(t.Context(), func(context.Context) (int, error) { panic("dear") }) })
	require.Equal(t, shed.FallbackStats{Unanswered: 2}, f.Stats())
}

func TestFallbackIsSafeForConcurrentUse(t *testing.T) {
	f := shed.Fallback[int]{Answer: func(context.Context, error) (int, error) { return 2, nil }}
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for i := range 1000 {
				got, err := f.Do(t.Context(), func(context.Context) (int, error) {
					if i%2 == 0 {
						return 0, shed.ErrShed
					}
					return 1, nil
				})
				require.NoError(t, err)
				require.Equal(t, 2-i%2, got)
			}
		})
	}
	wg.Wait()
	require.Equal(t, shed.FallbackStats{Worked: 2000, FellBack: shed.Counts{2: 2000}}, f.Stats())
}

func TestFallbackAllocatesNothing(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector allocates")
	}
	f := shed.Fallback[int]{Answer: func(context.Context, error) (int, error) { return 2, nil }}
	refused := &shed.Error{Reason: shed.Full}
	ctx := t.Context()
	require.Zero(t, testing.AllocsPerRun(100, func() {
		_, _ = f.Do(ctx, func(context.Context) (int, error) { return 0, refused })
	}))
}
