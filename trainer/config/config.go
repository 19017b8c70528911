// Package config owns every setting of a run: one struct, read from TOML,
// checked field by field, written resolved into the run folder.
package config

// Config is all that a run depends on. Its text is stored in the run folder,
// and a folder is only gone on with under the same one.
type Config struct {
	Student  Student  `toml:"student"`
	Corpus   Corpus   `toml:"corpus"`
	Pretrain Pretrain `toml:"pretrain"`
	Rollout  Rollout  `toml:"rollout"`
	Teacher  Teacher  `toml:"teacher"`
	Reward   Reward   `toml:"reward"`
	PPO      PPO      `toml:"ppo"`
	Interact Interact `toml:"interact"`
	Evaluate Evaluate `toml:"evaluate"`
	Run      Run      `toml:"run"`
}

// Student is the shape of the GPT-2.
type Student struct {
	Layers           int     `toml:"layers"`
	Heads            int     `toml:"heads"`
	Width            int     `toml:"width"`
	Context          int     `toml:"context"` // tokens
	Vocab            int     `toml:"vocab"`   // tokens of the byte-level BPE, at most
	LayerNormEpsilon float64 `toml:"layernorm_epsilon"`
}

// Corpus is what the student reads first.
type Corpus struct {
	Path         string  `toml:"path"`          // "" = the built-in storybook; a text file (.txt, .zst, .gz) or a folder
	Words        int     `toml:"words"`         // words of the storybook
	HeldOut      float64 `toml:"held_out"`      // fraction of the documents that is only measured
	MinFrequency int     `toml:"min_frequency"` // of a pair, for the BPE to merge it
}

// Pretrain are the settings of next-token prediction.
type Pretrain struct {
	Words       int64   `toml:"words"`        // to read, repetitions counted; 0 = no pretraining
	BatchTokens int     `toml:"batch_tokens"` // of one update
	LR          float64 `toml:"lr"`
	Beta1       float64 `toml:"beta1"`
	Beta2       float64 `toml:"beta2"`
	Epsilon     float64 `toml:"epsilon"`
	WeightDecay float64 `toml:"weight_decay"`
	GradClip    float64 `toml:"grad_clip"`
	Warmup      float64 `toml:"warmup"`   // fraction of the updates
	Schedule    string  `toml:"schedule"` // linear, cosine, constant
	Dropout     float64 `toml:"dropout"`
	Milestones  []int64 `toml:"milestones"` // words after which a checkpoint is kept
}

// Rollout is how stories are told.
type Rollout struct {
	Prompt       string  `toml:"prompt"`
	Stories      int     `toml:"stories"`        // of a batch
	MaxNewTokens int     `toml:"max_new_tokens"` // of a reply
	Temperature  float64 `toml:"temperature"`
	TopK         int     `toml:"top_k"` // 0 = off
	TopP         float64 `toml:"top_p"` // 1 = off
}

// Teacher is who rates, and how it is asked.
type Teacher struct {
	Model         string     `toml:"model"`        // a name (`onceupon teacher list`) or a path
	SecondJudge   string     `toml:"second_judge"` // rates before and after, never teaches; "" = none
	Device        string     `toml:"device"`       // cpu, cuda, cuda:N
	LlamaDir      string     `toml:"llama_dir"`    // "" = where `make fetch` or `make teacher-cuda` put it
	Rubric        string     `toml:"rubric"`       // "" = by model; plain, chat or a path
	Reading       string     `toml:"reading"`      // expected, sampled
	Calibrate     bool       `toml:"calibrate"`
	Weights       [3]float64 `toml:"weights"` // of readability, coherence, creativity
	Temperature   float64    `toml:"temperature"`
	Seed          uint64     `toml:"seed"`
	Wave          Pick       `toml:"wave"`           // stories of one decode
	MicroBatch    Pick       `toml:"micro_batch"`    // tokens of one pass of it
	MaxUnreadable float64    `toml:"max_unreadable"` // fraction of a batch
	MissingMarks  string     `toml:"missing_marks"`  // of a sampled answer: refuse, or paper (0 each; half of all when none)
	Probe         bool       `toml:"probe"`          // refuse a teacher that prefers noise
	ProbeStories  int        `toml:"probe_stories"`  // of each kind
}

// Reward turns a rating into what PPO gets:
// (score / 9 + bonus * min(words, divisor) / divisor) / (1 + bonus).
type Reward struct {
	LengthBonus   float64 `toml:"length_bonus"`
	LengthDivisor float64 `toml:"length_divisor"` // words
}

// PPO are the settings of trainer/ppo, with TRL's meaning.
type PPO struct {
	LR             float64 `toml:"lr"`
	Epochs         int     `toml:"epochs"`
	Minibatch      int     `toml:"minibatch"` // stories, 0 = the whole batch
	Accumulation   int     `toml:"accumulation"`
	Gamma          float64 `toml:"gamma"`
	Lambda         float64 `toml:"lambda"`
	Clip           float64 `toml:"clip"`
	ValueClip      float64 `toml:"value_clip"`
	ValueCoef      float64 `toml:"value_coef"`
	ValueInit      string  `toml:"value_init"` // of the value head: zero, linear
	InitKL         float64 `toml:"init_kl"`
	TargetKL       float64 `toml:"target_kl"` // nats a story
	Horizon        float64 `toml:"horizon"`   // stories
	AdaptiveKL     bool    `toml:"adaptive_kl"`
	KLPenalty      string  `toml:"kl_penalty"` // kl, abs, mse
	WhitenRewards  bool    `toml:"whiten_rewards"`
	RatioThreshold float64 `toml:"ratio_threshold"`
	MaxGradNorm    float64 `toml:"max_grad_norm"` // 0 = off
	EarlyStop      float64 `toml:"early_stop"`    // policy KL; 0 = off
	ScoreScaling   bool    `toml:"score_scaling"`
	ScoreNorm      bool    `toml:"score_norm"`
	ScoreClip      float64 `toml:"score_clip"` // 0 = off
	// Quirks of TRL 0.9.4 (docs/ppo.md); parity = "trl-0.9.4" is all of them.
	ClipOnce   bool `toml:"clip_once"`
	StepOnSkip bool `toml:"step_on_skip"`
	WhitenLeak bool `toml:"whiten_leak"`
	// RolloutDropout tells all but the first batch with pretrain.dropout.
	RolloutDropout bool   `toml:"rollout_dropout"`
	Parity         string `toml:"parity"` // trl-0.9.4: all of these and teacher.missing_marks = "paper"
}

// Interact is the length of the interaction and its guards.
type Interact struct {
	BudgetWords     int     `toml:"budget_words"`     // 0 = no limit
	Batches         int     `toml:"batches"`          // 0 = until the budget is spent
	PromptPerStory  bool    `toml:"prompt_per_story"` // charge the prompt once for each story of the first batch, as the paper does
	CheckpointEvery int     `toml:"checkpoint_every"` // batches
	MaxKL           float64 `toml:"max_kl"`           // nats a story; above it a student is not chosen
	MinDistinct2    float64 `toml:"min_distinct2"`    // of the start's distinct-2; below it a student's score counts by the square of its part
	StopKL          float64 `toml:"stop_kl"`          // nats a story; above it the run stops with exit code 4; 0 = off
	Select          string  `toml:"select"`           // best, last
	Overlap         string  `toml:"overlap"`          // rate stories while others are told: auto (when a card is used), on, off
}

// Evaluate is how the rise is measured, on seeds that are never trained on.
type Evaluate struct {
	Every         int `toml:"every"`          // batches between choices of the best student
	ChooseOn      int `toml:"choose_on"`      // stories of the set on which the best is chosen
	ReportOn      int `toml:"report_on"`      // stories of the set on which it is reported
	SecondStories int `toml:"second_stories"` // of these, how many the second judge reads; 0 = all
}

// Run is everything else.
type Run struct {
	Seed      uint64 `toml:"seed"`
	Threads   int    `toml:"threads"`    // 0 = one per core
	Backend   string `toml:"backend"`    // cpu, cuda, ref
	ISA       string `toml:"isa"`        // auto, avx512bf16, avx512, avx2, portable
	Kernels   string `toml:"kernels"`    // variants of the backend's ops, "op=name,..."; "" = the defaults
	Precision string `toml:"precision"`  // fp32; bf16: factors of the student's multiplications, with fp32 sums; auto: bf16 on cuda
	MaxTokens int    `toml:"max_tokens"` // packed tokens of one call of the student
	Recompute string `toml:"recompute"`  // none, ffn, layer, pair: what a training step computes again instead of keeping it
}
