\set s_id ((random(0, 65535) | random(1, :subs)) % :subs) + 1
\set sf_type random(1, 4)
\set start_time random(0, 2) * 8
\set end_time :start_time + random(1, 8)
\set number random(1, 1000000000)
BEGIN;
SELECT sf_type FROM special_facility WHERE s_id = :s_id;
INSERT INTO call_forwarding
    SELECT CAST(:s_id AS INTEGER), CAST(:sf_type AS SMALLINT), CAST(:start_time AS SMALLINT),
        CAST(:end_time AS SMALLINT), CAST(:number AS VARCHAR(15))
    WHERE EXISTS (SELECT 1 FROM special_facility WHERE s_id = :s_id AND sf_type = :sf_type)
    ON CONFLICT DO NOTHING;
COMMIT;
