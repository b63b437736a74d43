-- Everything the journal says to SQLite, by name.  A block begins with its name between dashes.
-- The schema is never edited: a change is a new migration, and journals of all versions must load.

-- migration 1 --
CREATE TABLE job (
    id           INTEGER PRIMARY KEY,
    key          TEXT UNIQUE,          -- of the request that made it; NULL: it had none
    word         TEXT NOT NULL,        -- Slurm's word for its state
    name         TEXT NOT NULL,
    submitted_at REAL NOT NULL,
    ended_at     REAL,                 -- NULL: it has not
    spec         TEXT NOT NULL,        -- JSON, core/model.py: JobSpec
    state        TEXT NOT NULL         -- JSON, core/lifecycle.py
) STRICT;
CREATE INDEX job_unfinished ON job (id) WHERE ended_at IS NULL;
CREATE INDEX job_ended ON job (ended_at) WHERE ended_at IS NOT NULL;
CREATE TABLE step (
    job_id       INTEGER NOT NULL REFERENCES job,
    id           INTEGER NOT NULL,
    word         TEXT NOT NULL,
    submitted_at REAL NOT NULL,
    ended_at     REAL,
    request      TEXT NOT NULL,        -- JSON, core/model.py: StepRequest, without its environment
    state        TEXT NOT NULL,
    PRIMARY KEY (job_id, id)
) STRICT, WITHOUT ROWID;
CREATE INDEX step_unfinished ON step (job_id) WHERE ended_at IS NULL;
-- What only a batch script's supervisor needs, until the job has ended.
CREATE TABLE payload (
    job_id INTEGER PRIMARY KEY REFERENCES job,
    env    TEXT NOT NULL,
    script TEXT NOT NULL
) STRICT;

-- migration 2 --
-- Jobs of several nodes, and jobs that start again; what was said of nodes.
ALTER TABLE job ADD COLUMN restarts INTEGER NOT NULL DEFAULT 0;
ALTER TABLE job ADD COLUMN array_id INTEGER;  -- the first job of its array; NULL: it is in none
CREATE INDEX job_array ON job (array_id) WHERE array_id IS NOT NULL;
CREATE INDEX job_array_unfinished ON job (array_id) WHERE array_id IS NOT NULL AND ended_at IS NULL;
CREATE TABLE node (
    name      TEXT PRIMARY KEY,
    condition TEXT NOT NULL            -- JSON, core/site.py: NodeCondition
) STRICT, WITHOUT ROWID;
UPDATE step SET state = json_set(
    json_remove(state, '$.place.cpus'),
    '$.place.shares',
    json_array(json_object(
        'node', (SELECT json_extract(job.state, '$.allocation.node')
                 FROM job WHERE job.id = step.job_id),
        'cpus', json(json_extract(state, '$.place.cpus'))
    ))
) WHERE json_extract(state, '$.place.cpus') IS NOT NULL;
UPDATE job SET state = json_set(
    json_remove(state, '$.allocation.node', '$.allocation.cpus', '$.allocation.memory'),
    '$.allocation.shares',
    json_array(json_object(
        'node', json_extract(state, '$.allocation.node'),
        'cpus', json(json_extract(state, '$.allocation.cpus')),
        'memory', json_extract(state, '$.allocation.memory')
    ))
) WHERE json_extract(state, '$.allocation.node') IS NOT NULL;

-- migration 3 --
-- What scontrol made of partitions.
CREATE TABLE partition (
    name       TEXT PRIMARY KEY,
    definition TEXT NOT NULL           -- JSON, core/site.py: Partition; null: it was deleted
) STRICT, WITHOUT ROWID;

-- save job --
INSERT INTO job (id, key, array_id, word, name, submitted_at, ended_at, spec, state, restarts)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (id) DO UPDATE
SET word = excluded.word, name = excluded.name, ended_at = excluded.ended_at,
    spec = excluded.spec, state = excluded.state, restarts = excluded.restarts;

-- save job state --
UPDATE job SET word = ?, ended_at = ?, state = ?, restarts = ? WHERE id = ?;

-- save node --
INSERT INTO node (name, condition) VALUES (?, ?)
ON CONFLICT (name) DO UPDATE SET condition = excluded.condition;

-- save partition --
INSERT INTO partition (name, definition) VALUES (?, ?)
ON CONFLICT (name) DO UPDATE SET definition = excluded.definition;

-- partitions --
SELECT name, definition FROM partition;

-- forget partitions --
DELETE FROM partition;

-- ended jobs but the last --
SELECT id FROM job WHERE ended_at IS NOT NULL AND id < (SELECT max(id) FROM job)
ORDER BY ended_at DESC LIMIT ? OFFSET ?;

-- forget steps --
DELETE FROM step WHERE job_id IN (SELECT value FROM json_each(?));

-- forget jobs --
DELETE FROM job WHERE id IN (SELECT value FROM json_each(?));

-- nodes --
SELECT name, condition FROM node;

-- save step --
INSERT INTO step (job_id, id, word, submitted_at, ended_at, request, state)
VALUES (?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (job_id, id) DO UPDATE
SET word = excluded.word, submitted_at = excluded.submitted_at,
    ended_at = excluded.ended_at, request = excluded.request, state = excluded.state;

-- save payload --
INSERT OR REPLACE INTO payload (job_id, env, script) VALUES (?, ?, ?);

-- drop payload --
DELETE FROM payload WHERE job_id = ?;

-- kept payloads --
SELECT payload.job_id, max(job.ended_at) FROM payload
JOIN job ON job.id = payload.job_id OR job.array_id = payload.job_id
GROUP BY payload.job_id HAVING count(*) = count(job.ended_at);

-- jobs of array --
SELECT id, submitted_at, spec, state, restarts FROM job
WHERE array_id = ? AND ended_at IS NOT NULL ORDER BY id;

-- payload --
SELECT env, script FROM payload WHERE job_id = ?;

-- unfinished jobs --
SELECT id, submitted_at, spec, state, restarts FROM job WHERE ended_at IS NULL ORDER BY id;

-- unfinished steps --
SELECT job_id, id, submitted_at, request, state FROM step
WHERE ended_at IS NULL ORDER BY job_id, submitted_at, id;

-- highest job --
SELECT coalesce(max(id), 0) FROM job;

-- highest steps --
SELECT step.job_id, max(step.id) FROM job JOIN step ON step.job_id = job.id
WHERE job.ended_at IS NULL AND step.id < ? GROUP BY step.job_id;

-- job --
SELECT id, submitted_at, spec, state, restarts FROM job WHERE id = ?;

-- job of key --
SELECT id, submitted_at, spec, state, restarts FROM job WHERE key = ?;

-- jobs ended since --
SELECT id, submitted_at, spec, state, restarts FROM job WHERE ended_at >= ? ORDER BY id;

-- step --
SELECT job_id, id, submitted_at, request, state FROM step WHERE job_id = ? AND id = ?;

-- history of jobs --
SELECT id, submitted_at, spec, state, restarts FROM job WHERE id IN (
    SELECT value FROM json_each(?1)
    UNION SELECT id FROM job WHERE array_id IN (SELECT value FROM json_each(?1))
)
AND id > ?2 AND (?3 IS NULL OR ended_at IS NULL OR ended_at >= ?3)
AND (?4 IS NULL OR submitted_at <= ?4)
AND (?5 IS NULL OR name IN (SELECT value FROM json_each(?5)))
ORDER BY id LIMIT ?6;

-- all history --
SELECT id, submitted_at, spec, state, restarts FROM job
WHERE id > ?1 AND (?2 IS NULL OR submitted_at <= ?2)
AND (?3 IS NULL OR name IN (SELECT value FROM json_each(?3))) ORDER BY id LIMIT ?4;

-- history --
SELECT id, submitted_at, spec, state, restarts FROM job WHERE id IN (
    SELECT id FROM job WHERE ended_at IS NULL AND id > ?1
    UNION ALL SELECT id FROM job WHERE ended_at >= ?2 AND id > ?1
)
AND (?3 IS NULL OR submitted_at <= ?3)
AND (?4 IS NULL OR name IN (SELECT value FROM json_each(?4)))
ORDER BY id LIMIT ?5;

-- steps of jobs --
SELECT job_id, id, submitted_at, request, state FROM step
WHERE job_id IN (SELECT value FROM json_each(?));
