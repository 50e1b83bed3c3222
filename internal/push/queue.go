package push

import (
	"context"
	"sync"
)

// queue hands items on without ever blocking who puts them. What bounds it is
// the memory budget of the items in it.
type queue struct {
	mu     sync.Mutex
	items  []*item
	closed bool
	ready  chan struct{}
}

func newQueue() *queue { return &queue{ready: make(chan struct{}, 1)} }

func (q *queue) put(items ...*item) {
	q.mu.Lock()
	q.items = append(q.items, items...)
	q.mu.Unlock()
	q.signal()
}

// close says that nothing more comes.
func (q *queue) close() {
	q.mu.Lock()
	q.closed = true
	q.mu.Unlock()
	q.signal()
}

func (q *queue) signal() {
	select {
	case q.ready <- struct{}{}:
	default:
	}
}

// take waits for items and returns all there are; none means closed or ended.
func (q *queue) take(ctx context.Context, done <-chan struct{}) []*item {
	for {
		q.mu.Lock()
		items, closed := q.items, q.closed
		q.items = nil
		q.mu.Unlock()
		if len(items) > 0 || closed {
			return items
		}
		select {
		case <-q.ready:
		case <-done:
			return nil
		case <-ctx.Done():
			return nil
		}
	}
}
