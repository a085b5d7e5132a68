package pause_test

import (
	"strconv"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/evenkeel-go/evenkeel/ratelimit/internal/pause"
)

func TestPausesEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var p pause.Table
		require.Zero(t, p.Left("a"))
		p.Until("a", time.Now(), 3*time.Second, 2*time.Hour)
		p.Until("a", time.Now(), time.Second, 2*time.Hour) // shortens nothing
		require.Equal(t, 3*time.Second, p.Left("a"))
		require.Zero(t, p.Left("b"))
		p.Until("a", time.Now(), 4*time.Second, 2*time.Hour)
		time.Sleep(4*time.Second - 1)
		require.Equal(t, time.Duration(1), p.Left("a"))
		time.Sleep(time.Nanosecond)
		require.Zero(t, p.Left("a"))
		require.Zero(t, p.Len())
	})
}

func TestTheFirstToEndMakesRoom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var p pause.Table
		for i := range pause.Max {
			p.Until(strconv.Itoa(i), time.Now(), time.Duration(1+(i+7)%pause.Max)*time.Second, 2*time.Hour)
		}
		p.Until("new", time.Now(), time.Hour, 2*time.Hour)
		require.Equal(t, pause.Max, p.Len())
		require.Equal(t, time.Hour, p.Left("new"))
		require.Zero(t, p.Left(strconv.Itoa(pause.Max-7)), "its pause was the shortest")
		time.Sleep(10 * time.Second)
		p.Until("another", time.Now(), time.Hour, 2*time.Hour)
		require.Equal(t, pause.Max-8, p.Len(), "all that is over is forgotten") // 2 to 10 s, and one came
	})
}
