"""What a run needs in memory, by arithmetic on the model's config and the lengths of the data.

sizes        parameters of a model and of an adapter on it
micro_batch  the largest forward that a plan of batches contains
activations  what one forward and backward keep, and where they peak
phases       load, training step, validation: bytes by purpose, and the peak
choice       micro-batch tokens, checkpointing and quantisation that fit, with reasons
work         operations of an epoch, and the time that they take
"""
