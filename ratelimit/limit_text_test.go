package ratelimit_test

import (
	"encoding/json"
	"flag"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/evenkeel-go/evenkeel/ratelimit"
)

func TestParseLimit(t *testing.T) {
	for _, tc := range []struct {
		text  string
		want  ratelimit.Limit
		canon string
	}{
		{"100/s", ratelimit.Per(100, time.Second), "100/s"},
		{"100/s burst 200", ratelimit.Per(100, time.Second).Burst(200), "100/s burst 200"},
		{"100/s burst 100", ratelimit.Per(100, time.Second), "100/s"},
		{"5000/h", ratelimit.Per(5000, time.Hour), "5000/h"},
		{"5000/hour", ratelimit.Per(5000, time.Hour), "5000/h"},
		{"1/day burst 3", ratelimit.Per(1, day).Burst(3), "1/d burst 3"},
		{"1/d", ratelimit.Per(1, day), "1/d"},
		{"7/2d", ratelimit.Per(7, 2*day), "7/2d"},
		{"20/10s", ratelimit.Per(20, 10*time.Second), "20/10s"},
		{"20/10sec", ratelimit.Per(20, 10*time.Second), "20/10s"},
		{"20/1second", ratelimit.Per(20, time.Second), "20/s"},
		{"20/90s", ratelimit.Per(20, 90*time.Second), "20/90s"},
		{"20/60s", ratelimit.Per(20, time.Minute), "20/m"},
		{"6/min", ratelimit.Per(6, time.Minute), "6/m"},
		{"6/minute", ratelimit.Per(6, time.Minute), "6/m"},
		{"3/100ms", ratelimit.Per(3, 100*time.Millisecond), "3/100ms"},
		{"3/us", ratelimit.Per(3, time.Microsecond), "3/us"},
		{"3/5µs", ratelimit.Per(3, 5*time.Microsecond), "3/5us"},
		{"1/1ns", ratelimit.Per(1, time.Nanosecond), "1/ns"},
		{"  100 /  s   burst  200 ", ratelimit.Per(100, time.Second).Burst(200), "100/s burst 200"},
		{"0100/s", ratelimit.Per(100, time.Second), "100/s"},
	} {
		t.Run(tc.text, func(t *testing.T) {
			got, err := ratelimit.ParseLimit(tc.text)
			require.NoError(t, err)
			require.Equal(t, tc.want, got)
			require.Equal(t, tc.canon, got.String())
		})
	}
}

func TestParseLimitRefusesAnythingElse(t *testing.T) {
	for _, tc := range []struct{ text, want string }{
		{"", `expected a form such as "100/s"`},
		{"100", `expected a form such as "100/s"`},
		{"100 per second", `expected a form such as "100/s"`},
		{"/s", "whole number before the slash"},
		{"-1/s", "whole number before the slash"},
		{"+1/s", "whole number before the slash"},
		{"1.5/s", "whole number before the slash"},
		{"1e3/s", "whole number before the slash"},
		{"1_000/s", "whole number before the slash"},
		{"0x10/s", "whole number before the slash"},
		{"NaN/s", "whole number before the slash"},
		{"9223372036854775808/s", "whole number before the slash"},
		{"1/", "after the slash"},
		{"1/5", "after the slash"},
		{"1/fortnight", "after the slash"},
		{"1/S", "after the slash"},
		{"1/-1s", "after the slash"},
		{"1/1.5s", "after the slash"},
		{"1/1m30s", "after the slash"},
		{"1/s/s", "after the slash"},
		{"1/106752d", "after the slash"}, // more than 292 years
		{"1/99999999999999999999s", "after the slash"},
		{"1/s burst", "after the word burst"},
		{"1/s burst x", "after the word burst"},
		{"1/s burst 1 burst 2", "after the word burst"},
		{"0/s", "n is 0"},
		{"1/0s", "d is 0s"},
		{"1/s burst 0", "burst is 0"},
		{"2/ns", "one unit a nanosecond"},
		{strings.Repeat("x", 1000), "expected a form"},
	} {
		t.Run(tc.text, func(t *testing.T) {
			_, err := ratelimit.ParseLimit(tc.text)
			require.ErrorIs(t, err, ratelimit.ErrInvalidLimit)
			require.ErrorContains(t, err, tc.want)
			require.Less(t, len(err.Error()), 300, "a long text is not repeated")
		})
	}
}

func TestLimitTextRoundTrips(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		limit := drawLimit(t)
		back, err := ratelimit.ParseLimit(limit.String())
		require.NoError(t, err)
		require.Equal(t, limit, back)

		text, err := json.Marshal(map[string]ratelimit.Limit{"limit": limit})
		require.NoError(t, err)
		var decoded map[string]ratelimit.Limit
		require.NoError(t, json.Unmarshal(text, &decoded))
		require.Equal(t, limit, decoded["limit"])

		appended, err := limit.AppendText([]byte("x"))
		require.NoError(t, err)
		require.Equal(t, "x"+limit.String(), string(appended))
	})
}

func TestUnmarshalTextLeavesTheLimitAloneOnError(t *testing.T) {
	limit := ratelimit.Per(3, time.Second)
	require.Error(t, limit.UnmarshalText([]byte("many")))
	require.Equal(t, ratelimit.Per(3, time.Second), limit)
}

func TestLimitIsAFlag(t *testing.T) {
	flags := flag.NewFlagSet("test", flag.ContinueOnError)
	flags.SetOutput(io.Discard)
	var limit ratelimit.Limit
	flags.TextVar(&limit, "limit", ratelimit.Per(1, time.Second), "")
	require.NoError(t, flags.Parse([]string{"-limit", "5/m burst 2"}))
	require.Equal(t, ratelimit.Per(5, time.Minute).Burst(2), limit)
	require.Error(t, flags.Parse([]string{"-limit", "5"}))
}

// FuzzParseLimit looks for a text that is accepted but does not come back.
func FuzzParseLimit(f *testing.F) {
	for _, seed := range []string{"100/s", "100/s burst 200", "1/106751d", "7/5µs burst 9", "1/s burst", "/", "1/day\x00"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		limit, err := ratelimit.ParseLimit(text)
		if err != nil {
			require.ErrorIs(t, err, ratelimit.ErrInvalidLimit)
			require.Zero(t, limit)
			return
		}
		_, err = ratelimit.NewLimiter(limit)
		require.NoError(t, err, "what is parsed can be used")
		back, err := ratelimit.ParseLimit(limit.String())
		require.NoError(t, err)
		require.Equal(t, limit, back)
	})
}
