-- A usage ledger as tollgate wrote it before the tables of version 2: what `sqlite3 usage.db .dump` says, and the pragmas.
PRAGMA auto_vacuum = INCREMENTAL;
PRAGMA journal_mode = WAL;
BEGIN;
CREATE TABLE meta (key TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE requests (
  id INTEGER PRIMARY KEY,
  time INTEGER NOT NULL,
  request_id TEXT NOT NULL,
  consumer TEXT, route TEXT, model_requested TEXT, model TEXT, vendor TEXT,
  input INTEGER NOT NULL, output INTEGER NOT NULL, total INTEGER NOT NULL,
  cached INTEGER NOT NULL, cache_written INTEGER NOT NULL, reasoning INTEGER NOT NULL,
  source TEXT,
  duration_ms INTEGER NOT NULL, first_token_ms INTEGER,
  cost INTEGER, currency TEXT,
  status INTEGER NOT NULL, termination TEXT, attempts INTEGER NOT NULL,
  arm TEXT, conversation TEXT, parent TEXT, tools TEXT
);
INSERT INTO requests VALUES(1,1795824000000,'old-1','ann','api','gpt-4o','gpt-4o-2024','openai',10,1,11,0,0,0,'provider',100,40,1500,'USD',200,'completed',1,NULL,'conv-1a21fe65f569c1f62c8',NULL,NULL);
INSERT INTO requests VALUES(2,1795827600000,'old-2','ann','api','gpt-4o','gpt-4o-2024','openai',20,2,22,0,0,0,'provider',200,NULL,3000,'USD',200,'completed',1,NULL,'conv-1a21fe65f569c1f62c8','old-1','get_weather');
INSERT INTO requests VALUES(3,1795831200000,'old-3','ann','api','gpt-4o','gpt-4o-2024','openai',30,3,33,0,0,0,'provider',300,40,4500,'USD',200,'completed',1,NULL,'conv-1a21fe65f569c1f62c8','old-2',NULL);
INSERT INTO requests VALUES(4,1795834800000,'old-4','ann','api','gpt-4o','gpt-4o-2024','openai',40,4,44,0,0,0,'provider',400,NULL,6000,'USD',200,'completed',1,NULL,'s1',NULL,NULL);
INSERT INTO requests VALUES(5,1795838400000,'old-5','ann','api','gpt-4o','gpt-4o-2024','openai',50,5,55,0,0,0,'provider',500,40,7500,'USD',200,'completed',1,NULL,'s1',NULL,NULL);
INSERT INTO requests VALUES(6,1795842000000,'old-6',NULL,'api','gpt-4o','gpt-4o-2024','openai',60,6,66,0,0,0,'provider',600,NULL,9000,'USD',200,'completed',1,NULL,'s1',NULL,NULL);
CREATE TABLE hours (bucket INTEGER NOT NULL, consumer TEXT NOT NULL, route TEXT NOT NULL, model TEXT NOT NULL, vendor TEXT NOT NULL, source TEXT NOT NULL, termination TEXT NOT NULL, arm TEXT NOT NULL, currency TEXT NOT NULL,
  requests INTEGER NOT NULL, input INTEGER NOT NULL, output INTEGER NOT NULL, total INTEGER NOT NULL, cached INTEGER NOT NULL, cache_written INTEGER NOT NULL, reasoning INTEGER NOT NULL, cost INTEGER NOT NULL, duration_ms INTEGER NOT NULL, first_token_ms INTEGER NOT NULL, first_tokens INTEGER NOT NULL,
  PRIMARY KEY (bucket, consumer, route, model, vendor, source, termination, arm, currency)) WITHOUT ROWID;
INSERT INTO hours VALUES(1795824000000,'ann','api','gpt-4o-2024','openai','provider','completed','','USD',1,10,1,11,0,0,0,1500,100,40,1);
INSERT INTO hours VALUES(1795827600000,'ann','api','gpt-4o-2024','openai','provider','completed','','USD',1,20,2,22,0,0,0,3000,200,0,0);
INSERT INTO hours VALUES(1795831200000,'ann','api','gpt-4o-2024','openai','provider','completed','','USD',1,30,3,33,0,0,0,4500,300,40,1);
INSERT INTO hours VALUES(1795834800000,'ann','api','gpt-4o-2024','openai','provider','completed','','USD',1,40,4,44,0,0,0,6000,400,0,0);
INSERT INTO hours VALUES(1795838400000,'ann','api','gpt-4o-2024','openai','provider','completed','','USD',1,50,5,55,0,0,0,7500,500,40,1);
INSERT INTO hours VALUES(1795842000000,'','api','gpt-4o-2024','openai','provider','completed','','USD',1,60,6,66,0,0,0,9000,600,0,0);
CREATE TABLE days (bucket INTEGER NOT NULL, consumer TEXT NOT NULL, route TEXT NOT NULL, model TEXT NOT NULL, vendor TEXT NOT NULL, source TEXT NOT NULL, termination TEXT NOT NULL, arm TEXT NOT NULL, currency TEXT NOT NULL,
  requests INTEGER NOT NULL, input INTEGER NOT NULL, output INTEGER NOT NULL, total INTEGER NOT NULL, cached INTEGER NOT NULL, cache_written INTEGER NOT NULL, reasoning INTEGER NOT NULL, cost INTEGER NOT NULL, duration_ms INTEGER NOT NULL, first_token_ms INTEGER NOT NULL, first_tokens INTEGER NOT NULL,
  PRIMARY KEY (bucket, consumer, route, model, vendor, source, termination, arm, currency)) WITHOUT ROWID;
INSERT INTO days VALUES(1795824000000,'ann','api','gpt-4o-2024','openai','provider','completed','','USD',5,150,15,165,0,0,0,22500,1500,120,3);
INSERT INTO days VALUES(1795824000000,'','api','gpt-4o-2024','openai','provider','completed','','USD',1,60,6,66,0,0,0,9000,600,0,0);
CREATE INDEX requests_time ON requests (time);
CREATE INDEX requests_conversation ON requests (conversation) WHERE conversation IS NOT NULL;
PRAGMA application_id = 1416588396;
PRAGMA user_version = 1;
COMMIT;
