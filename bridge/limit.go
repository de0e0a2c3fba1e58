package bridge

import (
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// limits holds token buckets by key. Full buckets are forgotten, so that memory follows the busy keys only. Its
// methods may be called from several goroutines. After a restart every bucket is full: what a flood gains by that is
// one burst.
type limits[K comparable] struct {
	every time.Duration
	burst int

	mu      sync.Mutex
	buckets map[K]*rate.Limiter
}

// maxBuckets is when idle buckets are swept out: a bucket has some hundred bytes, so up to here nothing is worth a
// sweep.
const maxBuckets = 4096

// newLimits makes buckets that hold burst tokens and get another one in each interval. A key's bucket is full when it
// is first met.
func newLimits[K comparable](burst int, every time.Duration) *limits[K] {
	return &limits[K]{every: every, burst: burst, buckets: map[K]*rate.Limiter{}}
}

// take takes a token out of the key's bucket and reports whether there was one. It never waits: who finds no token is
// told so, because a command that is run an hour later is not what its author meant.
func (l *limits[K]) take(key K, now time.Time) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	bucket := l.buckets[key]
	// Users come from signed bodies, so an attacker can bring at most as many keys as the forge has accounts.
	if bucket == nil {
		if len(l.buckets) >= maxBuckets {
			l.sweep(now)
		}
		bucket = rate.NewLimiter(rate.Every(l.every), l.burst)
		l.buckets[key] = bucket
	}
	return bucket.AllowN(now, 1)
}

// sweep forgets buckets that are full again: a new one would be the same. The caller holds the lock.
func (l *limits[K]) sweep(now time.Time) {
	for key, bucket := range l.buckets {
		if bucket.TokensAt(now) >= float64(l.burst) {
			delete(l.buckets, key)
		}
	}
}
