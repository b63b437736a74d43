def run(seed, numbers, keep):
    pass
