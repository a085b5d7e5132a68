package shed_test

import (
	"context"
	"fmt"
	"time"

	"github.com/evenkeel-go/evenkeel/ratelimit/shed"
)

// A page is rendered by the server, or by the client when the server is too busy.
func ExampleFallback() {
	utilization := 0.5
	shedder, err := shed.NewShedder(shed.ShedderOptions{Utilization: func() float64 { return utilization }})
	if err != nil {
		panic(err)
	}
	pages := shed.Fallback[string]{
		Answer: func(context.Context, error) (string, error) { return "<script src=render.js>", nil },
	}
	now := time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)
	page := func() string {
		now = now.Add(time.Second)
		page, err := pages.Do(context.Background(), func(context.Context) (string, error) {
			if err := shedder.AdmitAt(now, shed.Sheddable, "ann"); err != nil {
				return "", err
			}
			return "<h1>Hello, Ann</h1>", nil
		})
		if err != nil {
			panic(err)
		}
		return page
	}
	fmt.Println(page())
	utilization = 1.5
	for range 30 {
		page()
	}
	fmt.Println(page())
	stats := pages.Stats()
	fmt.Println(stats.Worked+stats.FellBack.Of(shed.Sheddable), "pages, no error")
	// Output:
	// <h1>Hello, Ann</h1>
	// <script src=render.js>
	// 32 pages, no error
}
