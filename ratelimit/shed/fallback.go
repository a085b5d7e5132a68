package shed

import (
	"context"
	"errors"
	"sync/atomic"
)

// Fallback answers with something cheaper when the work is shed, and counts how
// often. It is how Kijiji's pages survive load: a server that is too busy to render a
// page sends the client what it needs to render it itself, which costs the server
// next to nothing and is better than an error.
//
// It stands in for refusals alone: for errors that wrap [ErrShed], which come from
// [Shedder.Admit], from the limits on what is in progress, from [Throttle.Allow], or
// from anything deeper that passes them on. Other errors of the work are returned as
// they are: nothing says that the cheap answer is right for them.
//
// Set Answer before first use and do not change it. A Fallback must not be copied after
// first use. Do adds one atomic addition to the work.
//
// A Fallback is safe for concurrent use by multiple goroutines.
type Fallback[T any] struct {
	// Answer returns the cheaper answer. The cause is the error that wraps ErrShed. If
	// the cheap answer is not cheap, bound it too: an error of its own is returned
	// by Do. If it is nil there is no fallback: Do returns the refusal.
	Answer func(ctx context.Context, cause error) (T, error)

	worked, failed, unanswered atomic.Uint64
	fellBack                   [classes]atomic.Uint64
}

// FallbackStats says how often a [Fallback] was needed.
type FallbackStats struct {
	// Worked counts work that was done, Failed what ended in an error that is no
	// refusal.
	Worked, Failed uint64

	// FellBack counts the answers of the fallback, by the class of the *[Error] that
	// refused the work. A refusal without one counts as Default.
	FellBack Counts

	// Unanswered counts the refusals that remained: there was no fallback, or it
	// failed, or the context had ended by then.
	Unanswered uint64
}

// Do runs work and returns what it returns, or the fallback's answer if work was shed.
// Work asks for admission itself, by whatever rule there is, so that what it was granted
// can be given back with a defer.
//
// When ctx has ended Do does not begin the work, nor the fallback, and returns
// ctx.Err(). Nothing is counted when work or the fallback
// panics.
func (f *Fallback[T]) Do(ctx context.Context, work func(context.Context) (T, error)) (T, error) {
	var none T
	if err := ctx.Err(); err != nil {
		return none, err
	}
	answer, err := work(ctx)
	if err == nil {
		f.worked.Add(1)
		return answer, nil
	}
	if !errors.Is(err, ErrShed) {
		f.failed.Add(1)
		return answer, err
	}
	if f.Answer == nil {
		f.unanswered.Add(1)
		return answer, err
	}
	if err := ctx.Err(); err != nil {
		f.unanswered.Add(1)
		return none, err
	}
	class := Default
	if refusal, ok := errors.AsType[*Error](err); ok {
		class = refusal.Class
	}
	answer, err = f.Answer(ctx, err)
	if err != nil {
		f.unanswered.Add(1)
		return answer, err
	}
	f.fellBack[class.index()].Add(1)
	return answer, nil
}

// Stats returns a snapshot. The numbers are read one after the other while others
// go on: they may not be of the same moment.
func (f *Fallback[T]) Stats() FallbackStats {
	stats := FallbackStats{Worked: f.worked.Load(), Failed: f.failed.Load(), Unanswered: f.unanswered.Load()}
	for i := range f.fellBack {
		stats.FellBack[i] = f.fellBack[i].Load()
	}
	return stats
}
