package bench

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"sync"

	"onceupon/trainer/fault"
	"onceupon/trainer/tokenizer"
)

// Tokenizer times the learning of a vocabulary from documents and their
// encoding, with every thread taking documents.
func Tokenizer(ctx context.Context, o Options, docs []string, vocab int, peers []Command) ([]Result, error) {
	size := 0
	for _, d := range docs {
		size += len(d)
	}
	shape := fmt.Sprintf("%.1fMB_V%d", float64(size)/1e6, vocab)
	var t *tokenizer.Tokenizer
	learn := func() (err error) {
		t, err = tokenizer.Train(ctx, slices.Values(docs), tokenizer.TrainOptions{VocabSize: vocab, MinFrequency: 2})
		return err
	}
	if err := learn(); err != nil {
		return nil, err
	}
	text, err := peerText(docs, vocab, peers)
	if err != nil {
		return nil, err
	}
	defer os.Remove(text)
	var results []Result
	for _, task := range []struct {
		name string
		run  func() error
	}{{"tokenizer_train", learn}, {"tokenizer_encode", func() error { encodeAll(t, docs, o.Threads); return nil }}} {
		if !o.takes(task.name) {
			continue
		}
		r := Result{Name: task.name, Shape: shape, Backend: "cpu", Variant: "go", RateUnit: "MB/s"}
		if err := r.Sample(o.Count, o.Time, func(times int64) error {
			for range times {
				if err := task.run(); err != nil {
					return err
				}
			}
			return nil
		}); err != nil {
			return nil, err
		}
		r.finish(float64(size) / 1e6)
		o.Say("%-18s %s: %.4g MB/s", task.name, shape, r.Rate)
		for _, p := range peers {
			peer, err := p.Run(ctx, task.name, text, o.Threads)
			if err != nil {
				return nil, err
			}
			r.peer(peer, o)
		}
		results = append(results, r)
	}
	if len(results) == 0 {
		return nil, fault.New(fault.Usage, "bench tokenizer: --filter %s matches none of tokenizer_train, tokenizer_encode", o.Filter)
	}
	return results, nil
}

// peerText writes the documents for peers, {"vocab": V, "documents": [...]},
// and returns the file, "" without peers.
func peerText(docs []string, vocab int, peers []Command) (string, error) {
	if len(peers) == 0 {
		return "", nil
	}
	f, err := os.CreateTemp("", "onceupon-bench-*.json")
	if err != nil {
		return "", fault.Wrap(fault.Failed, err)
	}
	if err := json.NewEncoder(f).Encode(map[string]any{"vocab": vocab, "documents": docs}); err != nil {
		f.Close()
		return f.Name(), fault.Wrap(fault.Failed, err)
	}
	return f.Name(), f.Close()
}

// encodeAll shares documents out among threads.
func encodeAll(t *tokenizer.Tokenizer, docs []string, threads int) {
	var group sync.WaitGroup
	for k := range threads {
		group.Go(func() {
			var ids []int32
			for i := k; i < len(docs); i += threads {
				ids = t.EncodeAppend(ids[:0], docs[i])
			}
		})
	}
	group.Wait()
}
