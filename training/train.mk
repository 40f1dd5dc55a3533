# The embedded model. BUDGET is minutes; INIT=models/tiny goes on from the export, at a
# RATE of learning that keeps what it knows.
BUDGET ?= 120
RATE ?= $(if $(INIT),2e-4,1e-3)
MODEL ?= models/tiny
SIZE ?= 64
TRAIN_STYLES ?= noto,twemoji,flat,3d,emojione
TRAIN_DATA = --data training/work/data --styles $(TRAIN_STYLES) --concepts training/concepts.txt

TRAIN_READY = .venv/.installed-training

.PHONY: train evaluate samples blind blind-score larger

$(TRAIN_READY): training/requirements.txt | install
	$(PYTHON) -m pip install --quiet -r training/requirements.txt
	@touch $@

train: $(TRAIN_READY)
	nice -n 19 $(PYTHON) -m training --budget $(BUDGET) --rate $(RATE) --size $(SIZE) $(if $(INIT),--init $(INIT))

training/work/data/emoji%.npz: | $(TRAIN_READY)
	$(PYTHON) -m training.prepare training/work/data $*

evaluate: training/work/data/emoji64.npz
	$(PYTHON) -m training.evaluate --model $(MODEL) $(TRAIN_DATA)

samples: training/work/data/emoji64.npz
	$(PYTHON) -m training.grids --model $(MODEL) $(TRAIN_DATA) --out docs/images

blind: install
	$(PYTHON) -m training.blind make --model $(MODEL)

blind-score: install
	$(PYTHON) -m training.blind score

# A trial: a decoder of 128x128 pictures for the same latents, beside the model's own.
LARGER = training/work/larger
larger: TRAIN_STYLES = noto,twemoji,flat,3d,emojione,notov1,fxemoji
larger: training/work/data/emoji128.npz
	nice -n 19 $(PYTHON) -m training.launch 2 training.larger --model $(MODEL) $(TRAIN_DATA) \
		--budget $$(( $(BUDGET) * 60 )) --state $(LARGER)/state.pt --out $(LARGER)/decoder.safetensors
	$(PYTHON) -m training.larger_sheet --model $(MODEL) $(TRAIN_DATA) \
		--decoder $(LARGER)/decoder.safetensors --out $(LARGER)/sheet.png
